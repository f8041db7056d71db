"""The index of a Hugging Face checkpoint: every tensor's place in the safetensors files, checked before use.

The safetensors format is described at https://github.com/huggingface/safetensors: eight bytes of header
length, a JSON header, then the data, without holes and to the end of the file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.mapping import TensorLocation, map_tensor

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library


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
        tensors: dict[str, TensorLocation] = {}
        for file in _shards(folder):
            for name, location in read_header(file).items():
                if name in tensors:
                    raise CheckpointError(f"tensor {name} is in both {tensors[name].file} and {file}")
                tensors[name] = location
        checkpoint = cls(folder, tensors)
        checkpoint._check_index()
        return checkpoint

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

    def _check_index(self) -> None:
        index = self.folder / INDEX_FILE
        if not index.exists():
            return
        lost = sorted(set(read_json(index)["weight_map"]) - set(self._tensors))
        if lost:
            raise CheckpointError(
                f"{index} announces {len(lost)} tensors that no shard holds, the first is {lost[0]}"
            )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from `file`. Raises `CheckpointError` if it is missing or is none."""
    try:
        value = json.loads(file.read_text())
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} should hold a JSON object, not a {type(value).__name__}")
    return value


def read_header(file: Path) -> dict[str, TensorLocation]:
    """The tensors of one safetensors file. Raises `CheckpointError` naming the file and what is wrong."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if length > min(size - 8, _MAX_HEADER):
                raise CheckpointError(
                    f"{file} is truncated or no safetensors file: {size} bytes, header of {length}"
                )
            header = json.loads(stream.read(length))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} has a malformed safetensors header: {error}") from error
    tensors = _locations(file, header, 8 + length)
    _check_tiling(file, tensors, 8 + length, size)
    return tensors


def _locations(file: Path, header: Any, data_start: int) -> dict[str, TensorLocation]:
    tensors = {}
    try:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            location = TensorLocation(file, data_start + begin, entry["dtype"], tuple(entry["shape"]))
            if entry["dtype"] not in BY_NAME:
                raise CheckpointError(f"{file}: tensor {name} has the unknown dtype {entry['dtype']}")
            if begin < 0 or end - begin != location.nbytes:
                raise CheckpointError(
                    f"{file}: tensor {name} of shape {list(location.shape)} needs {location.nbytes} bytes, "
                    f"its offsets give {end - begin}"
                )
            tensors[name] = location
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} has a malformed safetensors header: {error!r}") from error
    return tensors


def _check_tiling(file: Path, tensors: dict[str, TensorLocation], start: int, size: int) -> None:
    """Tensors must follow each other without overlap or hole, up to the end of the file."""
    at = start
    for name, location in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if location.offset != at:
            raise CheckpointError(f"{file}: tensor {name} starts at byte {location.offset}, not at {at}")
        at += location.nbytes
    if at > size:
        raise CheckpointError(f"{file} is truncated: {size} bytes, its tensors end at byte {at}")
    if at < size:
        raise CheckpointError(f"{file} is overlong: {size} bytes, its tensors end at byte {at}")


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if not index.exists():
        if not (folder / SINGLE_FILE).exists():
            raise CheckpointError(f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}")
        return [folder / SINGLE_FILE]
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map")
    names = sorted(set(map(str, weight_map.values())))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names the shard {name!r}, which is not a plain file name")
        if not (folder / name).exists():
            raise CheckpointError(f"shard {name} is missing from {folder} ({len(names)} shards are listed)")
    return [folder / name for name in names]
