"""Whether the sizes in a config are those of a model, before a model is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.model.header import quoted

_MOST = 1 << 28  # of anything that tables are computed for; the largest published vocabularies have 2^18
_MOST_LAYERS = 4096  # each is a handful of Python objects, whatever its sizes are


def check_sizes(file: Path, config: Mapping[str, Any]) -> None:
    """Raises `CheckpointError` if a size in `file` would have a model built that takes for ever, or all memory."""
    for key, value in config.items():
        if isinstance(value, dict):
            check_sizes(file, value)
        elif type(value) is int and value > (most := _most(key)):
            raise CheckpointError(f"{file}: {quoted(key)} {value:.6g} is too large: at most {most}")


def _most(key: str) -> float:
    if "layers" in key or "depth" in key:
        return _MOST_LAYERS
    counts = key.startswith(("num_", "n_", "max_")) or key.endswith(("_size", "_dim", "_rank", "_base", "_heads"))
    return _MOST if counts else float("inf")
