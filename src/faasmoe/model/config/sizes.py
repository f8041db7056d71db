"""A check of the sizes in a config, before a model is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.json_file import quoted

_MOST_LAYERS = 4096  # each is a handful of Python objects, whatever its sizes are
_LONGEST = 1 << 28  # a vocabulary or context; the largest published ones have 2^18 and 2^24
_WIDEST = 1 << 20  # anything else, of which tables may be computed; the widest published layers have 2^17


def check_sizes(file: Path, config: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` if a model with the sizes in `file` could not be built in time, or in memory."""
    for key, value in config.items():
        if isinstance(value, dict):
            check_sizes(file, value)
        elif type(value) is int and value > (most := _most(key)):
            raise CheckpointError(f"{file}: {quoted(key)} {value:.6g} is too large: at most {most}")


def _most(key: str) -> float:
    if "layers" in key or "depth" in key:
        return _MOST_LAYERS
    if "vocab" in key or "position" in key or key.startswith("max_"):
        return _LONGEST
    size = key.startswith(("num_", "n_")) or key.endswith(("_size", "_dim", "_rank", "_heads"))
    return _WIDEST if size else float("inf")
