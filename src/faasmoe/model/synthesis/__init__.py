"""Checkpoints of random weights."""
