"""The files that hold a checkpoint's weights, chosen if a folder holds several sets of them. Without torch.

The order is transformers' (`modeling_utils._get_resolved_checkpoint_files`, 5.23): the file that the config names as
`transformers_weights`, model.safetensors, the shards of model.safetensors.index.json. Only where two whole sets lie
side by side is the folder refused: which one is meant cannot be known, and the wrong one answers as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.json_file import quoted, read_json

log = logging.getLogger(__name__)

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
INDEX_SUFFIX = ".index.json"


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """Safetensors files, and the index that names them, if they are shards."""

    files: tuple[Path, ...]
    index: Path | None = None
    announced: frozenset[str] = frozenset()  # tensors that the index says they hold


def weight_files(folder: Path, named: object = None) -> WeightFiles:
    """The files to load; `named` is the config's `transformers_weights`, which wins.

    Raises `CheckpointError` if there are none, a shard is missing, an index is malformed, or there are two sets.
    """
    if named is not None:
        file = explicit(folder, named)
        if not os.path.lexists(file):
            raise CheckpointError(f"{file} is missing, which config.json names as transformers_weights")
        return _sharded(file, read_index(file)) if file.name.endswith(INDEX_SUFFIX) else WeightFiles((file,))
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if not os.path.lexists(index):
        if not os.path.lexists(single):
            raise CheckpointError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return WeightFiles((single,))
    weight_map = read_index(index)
    names = set(weight_map.values())
    if names <= {SINGLE_FILE} or not os.path.lexists(single):
        return _sharded(index, weight_map)
    missing = sorted(name for name in names if not os.path.lexists(folder / name))
    if not missing:
        raise CheckpointError(
            f"{folder} holds two sets of weights: {SINGLE_FILE}, which transformers loads, and the {len(names)} shards "
            f"of {INDEX_FILE}; move away the set that is not meant, and the index if it is the shards"
        )
    log.warning("%s: %s is served; %s beside it names %d shards, of which %d are missing, and is not used",
                folder, SINGLE_FILE, INDEX_FILE, len(names), len(missing))  # fmt: skip
    return WeightFiles((single,))


def read_index(index: Path) -> Mapping[str, str]:
    """Tensors to the names of their shards, which are plain file names. Raises `CheckpointError`."""
    weight_map = read_json(index, strict=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    for name in weight_map.values():
        if not _is_plain(name):
            raise CheckpointError(f"{index} names the shard {quoted(name)}, which is not a plain file name")
    return weight_map


def explicit(folder: Path, named: object) -> Path:
    """The file that a config names as `transformers_weights`. Raises `CheckpointError` if it is none of `folder`."""
    if not isinstance(named, str) or not _is_plain(named) or not named.endswith((".safetensors", INDEX_SUFFIX)):
        raise CheckpointError(
            f"{folder / 'config.json'}: transformers_weights is {quoted(named)}: must be the name of a safetensors "
            "file, or of an index of some, in the same folder"
        )
    return folder / named


def _sharded(index: Path, weight_map: Mapping[str, str]) -> WeightFiles:
    names = sorted(set(weight_map.values()))
    for name in names:
        if not os.path.lexists(index.parent / name):
            raise CheckpointError(
                f"shard {quoted(name)} is missing from {index.parent} ({len(names)} shards are listed)"
            )
    return WeightFiles(tuple(index.parent / name for name in names), index, frozenset(weight_map))


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name not in {"", ".."} and name.isprintable()
