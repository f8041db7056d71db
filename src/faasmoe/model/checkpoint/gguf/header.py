"""The header of a GGUF file: its metadata, and which tensors it holds, where. Without torch.

The format is described in ggml's `docs/gguf.md`: a magic number, counts, metadata as keys and values, a table of
tensors, then their data, each at a multiple of the alignment. The file is not trusted: reading a header takes time and
memory in proportion to it, and it has at most `LARGEST_HEADER` bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.file_state import FileState, open_regular
from faasmoe.model.checkpoint.json_file import LONGEST_NAME, quoted

MAGIC = b"GGUF"
LARGEST_HEADER = 64 << 20  # bytes; a vocabulary of 260,000 tokens with its merges takes 15 MB
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # bytes, unless the metadata says otherwise
_LARGEST_ALIGNMENT = 1 << 20
_MOST_DIMENSIONS = 4
_LARGEST_SIZE = 1 << 48  # weights of a tensor: more than any file has
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8",
            12: "<f8"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_WORD, _LONG = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of a file: its type by ggml's number, and where its bytes begin."""

    name: str
    shape: tuple[int, ...]  # row-major, as torch has it
    type: int
    offset: int  # in the file


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a file says of itself."""

    file: Path
    state: FileState
    metadata: Mapping[str, Any]  # numbers, texts, lists of texts, and numpy arrays of numbers
    tensors: tuple[GgufTensor, ...]


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF files do. False if it cannot be read."""
    try:
        fd, _ = open_regular(file)
        with os.fdopen(fd, "rb") as stream:
            return stream.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_gguf_header(file: Path) -> GgufHeader:
    """Raises `CheckpointError` naming the file and the fault, `UnsupportedModel` for a version that is not read.

    Whether the tensors' data lie within the file is checked by whoever knows the sizes of their types
    (`check_places`).
    """
    try:
        fd, state = open_regular(file)
        with os.fdopen(fd, "rb") as stream:
            return _Parser(file, stream, state).header()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error


def check_places(header: GgufHeader, nbytes: Mapping[str, int]) -> None:
    """Check that tensors of these sizes lie within the file, and apart. Raises `CheckpointError`."""
    places = sorted(header.tensors, key=lambda tensor: (tensor.offset, nbytes[tensor.name]))
    for tensor, following in pairwise(places):
        if tensor.offset + nbytes[tensor.name] > following.offset:
            raise CheckpointError(f"{header.file}: tensors {tensor.name} and {following.name} overlap")
    for tensor in places[-1:]:
        if (end := tensor.offset + nbytes[tensor.name]) > header.state.size:
            raise CheckpointError(
                f"{header.file} is truncated: it has {header.state.size} bytes, and tensor {tensor.name} ends at {end}"
            )


class _Parser:
    """Reads a header from its beginning on."""

    def __init__(self, file: Path, stream: BinaryIO, state: FileState) -> None:
        self._file, self._stream, self._state = file, stream, state
        self._at = 0

    def header(self) -> GgufHeader:
        if self._take(4) != MAGIC:
            raise CheckpointError(f"{self._file} is no GGUF file: it does not begin with GGUF")
        version = self._word()
        if version not in _VERSIONS:
            swapped = ", whose bytes are in the order of big-endian machines" if version & 0xFFFF == 0 else ""
            raise UnsupportedModel(
                f"{self._file} is GGUF of version {version}{swapped}: versions 2 and 3 are read, little-endian"
            )
        tensors, pairs = self._long(), self._long()
        metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._name("a key of its metadata")
            if key in metadata:
                raise self._fault(f"the key {key} is there twice")
            metadata[key] = self._value(self._word())
        entries = [self._entry() for _ in range(tensors)]
        if len({entry.name for entry in entries}) < len(entries):
            raise self._fault("a tensor is there twice")
        return GgufHeader(self._file, self._state, metadata, tuple(self._placed(entries, metadata)))

    def _placed(self, entries: list[GgufTensor], metadata: Mapping[str, Any]) -> list[GgufTensor]:
        """The tensors with offsets in the file instead of in its data."""
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            raise self._fault(f"general.alignment is {quoted(alignment)}, which is no power of two")
        start = -(-self._at // alignment) * alignment
        for entry in entries:
            if entry.offset % alignment:
                raise self._fault(f"tensor {entry.name} lies at {entry.offset}, no multiple of {alignment}")
        return [GgufTensor(entry.name, entry.shape, entry.type, start + entry.offset) for entry in entries]

    def _entry(self) -> GgufTensor:
        name = self._name("a tensor")
        dimensions = self._word()
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise self._fault(f"tensor {name} has {dimensions} dimensions")
        shape = tuple(self._long() for _ in range(dimensions))[::-1]
        if 0 in shape or prod(shape) > _LARGEST_SIZE:
            raise self._fault(f"tensor {name} has the shape {list(shape)}")
        type, offset = self._word(), self._long()
        if offset > self._state.size:
            raise CheckpointError(f"{self._file} is truncated: it has no byte {offset}, where {name} begins")
        return GgufTensor(name, shape, type, offset)

    def _value(self, type: int) -> Any:
        if type in _SCALARS:
            return self._numbers(type, 1)[0].item()
        if type == _STRING:
            return self._text()
        if type != _ARRAY:
            raise self._fault(f"a value of the unknown type {type}")
        of, count = self._word(), self._long()
        if of == _STRING:
            return [self._text() for _ in range(self._bounded(count, _LONG.size))]
        if of not in _SCALARS:
            raise self._fault(f"an array of the type {of}")
        return self._numbers(of, count)

    def _numbers(self, type: int, count: int) -> np.ndarray[Any, Any]:
        dtype = np.dtype(_SCALARS[type])
        return np.frombuffer(self._take(self._bounded(count, dtype.itemsize) * dtype.itemsize), dtype)

    def _name(self, what: str) -> str:
        name = self._text()
        if not name or not name.isprintable() or len(name) > LONGEST_NAME:
            raise self._fault(f"{what} is named {quoted(name)}")
        return name

    def _text(self) -> str:
        raw = self._take(self._bounded(self._long(), 1))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self._fault(f"a text is no UTF-8: {error}") from error

    def _word(self) -> int:
        return int(_WORD.unpack(self._take(_WORD.size))[0])

    def _long(self) -> int:
        return int(_LONG.unpack(self._take(_LONG.size))[0])

    def _bounded(self, count: int, size: int) -> int:
        """A count of things of at least `size` bytes each, if the header may still hold them."""
        if count * size > LARGEST_HEADER - self._at:
            raise CheckpointError(
                f"{self._file} has a header of more than {LARGEST_HEADER} bytes; no more are read"
            )
        return count

    def _take(self, nbytes: int) -> bytes:
        self._bounded(nbytes, 1)
        taken = self._stream.read(nbytes)
        self._at += nbytes
        if len(taken) < nbytes:
            raise CheckpointError(f"{self._file} is truncated or no GGUF file: its header ends at byte {self._at}")
        return taken

    def _fault(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self._file} has a malformed GGUF header: {what}")
