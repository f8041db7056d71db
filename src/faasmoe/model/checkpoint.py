"""The index of a Hugging Face checkpoint: every tensor's place in the safetensors files, checked before use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import FileState, open_regular
from faasmoe.experts.mapping import TensorLocation, map_tensor
from faasmoe.model.header import parse_json, quoted, read_header

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_LARGEST_JSON = 64 << 20  # bytes


class Checkpoint:
    """All tensors of a checkpoint folder, by name, with their bytes left on disk."""

    def __init__(self, folder: Path, tensors: dict[str, TensorLocation]) -> None:
        self.folder = folder
        self._tensors = tensors

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Index `folder` and check all its files.

        Raises `CheckpointError` naming the file if one is missing, truncated, overlong or malformed.
        """
        if not folder.is_dir():
            raise CheckpointError(f"no such folder: {folder}")
        announced = _announced(folder)
        tensors: dict[str, TensorLocation] = {}
        for file in _shards(folder, announced):
            for name, location in read_header(file).items():
                if name in tensors:
                    raise CheckpointError(f"tensor {name} is in both {tensors[name].file} and {file}")
                tensors[name] = location
        lost = sorted(set(announced or ()) - set(tensors))
        if lost:
            raise CheckpointError(
                f"{folder / INDEX_FILE} announces {len(lost)} tensors that no shard holds, "
                f"the first is {quoted(lost[0])}"
            )
        return cls(folder, tensors)

    @property
    def files(self) -> dict[Path, FileState]:
        """The files that hold tensors, as they were when they were indexed."""
        return {location.file: location.state for location in self._tensors.values() if location.state}

    def config(self) -> dict[str, Any]:
        """The content of config.json. Raises `CheckpointError` if it is missing or malformed."""
        return read_json(self.folder / "config.json")

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def location(self, name: str) -> TensorLocation:
        """Where tensor `name` lies. Raises `CheckpointError` if there is none."""
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.folder} holds no tensor {name}") from None

    def tensor(self, name: str) -> Tensor:
        """Tensor `name`, mapped read-only."""
        return map_tensor(self.location(name))


def read_json(file: Path, most: int = _LARGEST_JSON, *, strict: bool = False) -> dict[str, Any]:
    """A JSON object from `file`, see `parse_json`.

    Raises `CheckpointError` if it is missing, is none, or has more than `most` bytes.
    """
    try:
        fd, state = open_regular(file)
        with os.fdopen(fd, "rb") as stream:
            if state.size > most:
                raise CheckpointError(f"{file} has {state.size} bytes; at most {most} are read")
            value = parse_json(stream.read(most).decode(), strict=strict)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} should hold a JSON object, not a {type(value).__name__}")
    return value


def _announced(folder: Path) -> Mapping[str, str] | None:
    """What the index says: tensors to the names of their shards. None if there is no index."""
    index = folder / INDEX_FILE
    if not os.path.lexists(index):
        return None
    weight_map = read_json(index, strict=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or name in {"", ".."} or not name.isprintable():
            raise CheckpointError(f"{index} names the shard {quoted(name)}, which is not a plain file name")
    return weight_map


def _shards(folder: Path, announced: Mapping[str, str] | None) -> list[Path]:
    if announced is None:
        if not os.path.lexists(folder / SINGLE_FILE):
            raise CheckpointError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return [folder / SINGLE_FILE]
    names = sorted(set(announced.values()))
    for name in names:
        if not os.path.lexists(folder / name):
            raise CheckpointError(f"shard {name} is missing from {folder} ({len(names)} shards are listed)")
    return [folder / name for name in names]
