"""The client's part in getting weights to nodes."""
