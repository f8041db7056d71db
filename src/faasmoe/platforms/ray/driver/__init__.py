"""Ray's driver: the process of a server that Ray knows. Nothing else here imports Ray."""
