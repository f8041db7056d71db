"""A real server under load while its processes are killed and hung, and its resources taken away. See `__main__`."""
