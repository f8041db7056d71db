"""A safetensors file of quantised weights, converted from a checkpoint's piece by piece."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.formats.base import MatrixLocation, QuantisedMatrix, WeightFormat
from faasmoe.experts.formats.registry import format_of
from faasmoe.experts.mapping import TensorLocation, map_array
from faasmoe.util.folders.copy_cache import PARTIAL

_ALIGNMENT = 64  # bytes, of where the data of a file begins
_PIECE = 4 << 20  # weights that are in memory at once

Advance = Callable[[int], object]  # called with the number of bytes written since the last call


@dataclass(frozen=True, slots=True)
class SourceMatrix:
    """A checkpoint's matrix to be converted to `[out, in]`."""

    name: str
    source: TensorLocation  # [in, out] if `transposed`
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`."""
        outs, ins = self.source.shape
        return (ins, outs) if self.transposed else (outs, ins)

    def tensors(self, format: WeightFormat) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat.converted`."""
        return format.converted(self.name, self.shape)

    def pieces(self, format: WeightFormat) -> Iterator[QuantisedMatrix]:
        """The matrix's rows in order, in `format`. Raises `CheckpointError` if a weight is not finite."""
        weight = map_array(self.source, read_ahead=True)
        if self.transposed:
            weight = weight.T
        outs, ins = self.shape
        at_once = max(1, _PIECE // ins)
        for first in range(0, outs, at_once):
            try:
                yield format.convert(weight[first : first + at_once])
            except ValueError as error:
                raise CheckpointError(f"{self.source.file}: {self.name} cannot be quantized: {error}") from error


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A checkpoint's matrix that is quantised already, to be kept in the format that kernels read."""

    name: str
    location: MatrixLocation

    def tensors(self, format: WeightFormat) -> dict[str, tuple[str, tuple[int, ...]]]:
        """See `WeightFormat.kept`; `format` is what that gives."""
        return format_of(self.location).kept(self.name, self.location)

    def pieces(self, format: WeightFormat) -> Iterator[QuantisedMatrix]:
        """The whole matrix in `format`. Raises `CheckpointError` for what kernels cannot read."""
        matrix: Any = self.location.map(read_ahead=True)
        yield matrix


class QuantisedFile:
    """Matrices in order, each as its format's tensors. Their places are known before the file is written."""

    def __init__(self, path: Path, format: WeightFormat, matrices: Sequence[SourceMatrix | PackedMatrix]) -> None:
        self.path = path
        self._format, self._matrices = format, matrices
        header, at = {}, 0
        for matrix in matrices:
            for name, (dtype, shape) in matrix.tensors(format).items():
                end = at + prod(shape) * BY_NAME[dtype].itemsize
                header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
                at = end
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        self._header = struct.pack("<Q", len(text)) + text
        self.nbytes = len(self._header) + at

    def locations(self) -> Iterator[MatrixLocation]:
        """The location of each matrix, in order."""
        at = len(self._header)
        for matrix in self._matrices:
            parts = []
            for dtype, shape in matrix.tensors(self._format).values():
                parts.append(TensorLocation(self.path, at, dtype, shape))
                at += parts[-1].nbytes
            yield self._format.location(parts)

    @property
    def there(self) -> bool:
        """Whether the file has been written, and for these matrices."""
        try:
            with self.path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                return size == self.nbytes and stream.read(len(self._header)) == self._header
        except OSError:  # what cannot be read is written again, and that says what is in the way
            return False

    def write(self, advance: Advance) -> None:
        """Write all of it beside its place, then put it there.

        Raises `OSError`, or `CheckpointError` if a weight is not finite or the checkpoint's file has changed.
        """
        draft = self.path.with_suffix(PARTIAL)
        try:
            with draft.open("wb") as stream:
                stream.write(self._header)
                for matrix in self._matrices:
                    _write(matrix, self._format, stream, advance)
                stream.flush()
                os.fsync(stream.fileno())
            draft.rename(self.path)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def _write(matrix: SourceMatrix | PackedMatrix, format: WeightFormat, stream: BinaryIO, advance: Advance) -> None:
    small = []
    for piece in matrix.pieces(format):
        first, *others = format.arrays(piece)
        stream.write(first.data)
        small.append(others)
        advance(piece.nbytes)
    for pieces in zip(*small, strict=True):
        stream.write(np.concatenate(pieces).data)
