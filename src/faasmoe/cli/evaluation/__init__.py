"""`faasmoe evaluate`."""
