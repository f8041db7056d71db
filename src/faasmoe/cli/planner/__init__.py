"""`faasmoe plan`."""
