"""`faasmoe kernels`, and the choice that it keeps."""
