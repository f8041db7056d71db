"""The header of a safetensors file: which tensors it holds, and where.

The format is described at https://github.com/huggingface/safetensors: eight bytes of header length, a JSON header,
then the data, without holes and to the end of the file. The file is not trusted: reading it takes time and
memory in proportion to its header, which has at most `LARGEST_HEADER` bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.file_state import FileState, open_regular
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.checkpoint.json_file import LONGEST_NAME, parse_json, quoted

LARGEST_HEADER = 32 << 20  # bytes: 250,000 tensors
_LENGTH = struct.Struct("<Q")
_LARGEST_SIZE = 1 << 48  # of one dimension: more bytes than any file has


def read_header(file: Path) -> dict[str, TensorLocation]:
    """The tensors of one safetensors file. Raises `CheckpointError` naming the file and the fault."""
    try:
        fd, state = open_regular(file)
        with os.fdopen(fd, "rb") as stream:
            start = stream.read(_LENGTH.size)
            length = _header_length(file, start, state.size)
            return parse_header(file, start + stream.read(length), state)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error


def parse_header(file: Path, start: bytes, state: FileState) -> dict[str, TensorLocation]:
    """The tensors of a file of `state.size` bytes that begins with `start`, the whole header included.

    Reads nothing: `file` is for messages and locations. Raises `CheckpointError`, and nothing else.
    """
    length = _header_length(file, start[: _LENGTH.size], state.size)
    begin = _LENGTH.size + length
    if len(start) < begin:
        raise CheckpointError(f"{file} was cut short while it was read")
    tensors = _locations(file, _parse(file, start[_LENGTH.size : begin]), begin, state)
    _check_tiling(file, tensors, begin, state.size)
    return tensors


def _header_length(file: Path, start: bytes, size: int) -> int:
    if len(start) < _LENGTH.size:
        raise CheckpointError(f"{file} is truncated or no safetensors file: it has {size} bytes")
    length = int(_LENGTH.unpack(start)[0])
    if length > size - _LENGTH.size:
        raise CheckpointError(f"{file} is truncated or no safetensors file: {size} bytes, header of {length}")
    if length > LARGEST_HEADER:
        raise CheckpointError(f"{file} has a header of {length} bytes; at most {LARGEST_HEADER} are read")
    return length


def _parse(file: Path, header: bytes) -> Mapping[str, Any]:
    try:
        if not header.startswith(b"{"):
            raise ValueError("it does not begin with {")
        value: dict[str, Any] = parse_json(header.decode(), strict=True)
        _check_metadata(value.pop("__metadata__", None))
    except ValueError as error:
        raise CheckpointError(f"{file} has a malformed safetensors header: {error}") from error
    return value


def _check_metadata(metadata: Any) -> None:
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError("__metadata__ is no object")
    for key, text in (metadata or {}).items():
        if not isinstance(text, str):
            raise ValueError(f"__metadata__ has something else than a text for {quoted(key)}")
        f"{key}{text}".encode()  # raises for halves of characters


def _locations(
    file: Path, header: Mapping[str, Any], data_start: int, state: FileState
) -> dict[str, TensorLocation]:
    tensors = {}
    for name, entry in header.items():
        if not name.isprintable() or len(name) > LONGEST_NAME:
            raise CheckpointError(f"{file} has a malformed safetensors header: a tensor named {quoted(name)}")
        try:
            dtype, shape, offsets = _entry(entry)
        except ValueError as error:
            raise CheckpointError(
                f"{file} has a malformed safetensors header: tensor {name} has {error}"
            ) from error
        if dtype not in BY_NAME:
            raise CheckpointError(f"{file}: tensor {name} has the unknown dtype {quoted(dtype)}")
        begin, end = offsets
        location = TensorLocation(file, data_start + begin, dtype, shape, state)
        if end - begin != location.nbytes:
            raise CheckpointError(
                f"{file}: tensor {name} of shape {list(shape)} needs {location.nbytes} bytes, "
                f"its offsets give {end - begin}"
            )
        tensors[name] = location
    return tensors


def _entry(entry: Any) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """Dtype, shape and offsets of a tensor's entry. Raises `ValueError` naming the fault."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("no entry of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str):
        raise ValueError("a dtype that is no text")
    if not _sizes(shape) or prod(size for size in shape if size) > _LARGEST_SIZE:
        raise ValueError("a shape that is no list of sizes")
    if not _sizes(offsets) or len(offsets) != 2:
        raise ValueError("data_offsets that are not two numbers of bytes")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _sizes(value: Any) -> bool:
    """Whether it is a short list of numbers that may be sizes."""
    return (
        isinstance(value, list)
        and len(value) <= 32  # numpy's most dimensions
        and all(type(size) is int and 0 <= size <= _LARGEST_SIZE for size in value)
    )


def _check_tiling(file: Path, tensors: Mapping[str, TensorLocation], start: int, size: int) -> None:
    """Tensors must follow each other without overlap or hole, up to the end of the file."""
    at = start
    places: Sequence[tuple[str, TensorLocation]] = sorted(
        tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)
    )
    for name, location in places:
        if location.offset != at:
            raise CheckpointError(f"{file}: tensor {name} starts at byte {location.offset}, not at {at}")
        at += location.nbytes
    if at > size:
        raise CheckpointError(f"{file} is truncated: {size} bytes, its tensors end at byte {at}")
    if at < size:
        raise CheckpointError(f"{file} is overlong: {size} bytes, its tensors end at byte {at}")
