"""`faasmoe serve`: what the gateway process is made of."""
