"""Measurements behind figures in code and documents. Run one as `python -m benchmarks.NAME`."""
