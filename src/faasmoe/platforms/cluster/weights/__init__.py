"""Weights of functions on nodes: whether a node has them, and how it gets what it lacks."""
