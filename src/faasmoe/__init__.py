"""Serve Mixture-of-Experts language models with the routed experts as serverless functions."""

__version__ = "0.1.0"
