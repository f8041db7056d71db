"""Multi-head latent attention: a sequence keeps a latent a token, of which all heads' keys and values are products."""
