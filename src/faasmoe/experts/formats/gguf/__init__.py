"""Weight formats of GGUF files: each row of a weight is a sequence of blocks, which hold codes and scales.

Source of the layouts: `ggml-common.h` of ggml, and `gguf.quants` in Python.
"""
