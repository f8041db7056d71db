"""Layers that keep a recurrent state, as transformers computes them, over a flat row of several sequences."""
