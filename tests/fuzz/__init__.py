"""Fuzzers of everything that parses what others have written. See `__main__`."""
