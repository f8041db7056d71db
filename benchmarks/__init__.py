"""Measurements behind figures in code and documents. Run one as `python -m benchmarks.NAME`."""

import os
from pathlib import Path

# where instances find the functions of benchmarks: a process that FaaSMoE starts imports nothing from its folder
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
)
