"""Meters of CPU time and memory by role. They import little, because the sampler runs beside the measured system."""
