"""Every seam into transformers and torch; `seams` is the list of them."""
