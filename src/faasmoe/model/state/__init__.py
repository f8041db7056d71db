"""Sequence state: the memory that a sequence keeps in each layer. One module for each kind."""
