"""In the gateway: keeps a daemon running."""
