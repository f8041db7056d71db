"""Seams into transformers and torch."""
