"""A step of few rows as a list of operations, recorded from transformers' forward and run without it."""
