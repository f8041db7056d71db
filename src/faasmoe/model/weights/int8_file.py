"""A safetensors file of matrices in eight bits, written from a checkpoint's piece by piece."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.int8 import Int8Location, Int8Matrix
from faasmoe.experts.mapping import TensorLocation, map_tensor
from faasmoe.experts.payload import raw
from faasmoe.model.weights.quantised_cache import PARTIAL

MULTIPLE = 16  # a matrix's inputs must be one of it: what the kernel takes at once, and scales stay aligned
_ALIGNMENT = 64  # bytes, of where the data of a file begins
_PIECE = 4 << 20  # weights that are in memory at once

Advance = Callable[[int], object]  # told how many bytes were written since the last time


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix to be written, `[out, in]`."""

    name: str
    source: TensorLocation  # [in, out] if `transposed`
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)`."""
        outs, ins = self.source.shape
        return (ins, outs) if self.transposed else (outs, ins)

    def pieces(self) -> Iterator[Int8Matrix]:
        """Its rows in order, in eight bits. Raises `CheckpointError` if one holds a weight that is not finite."""
        weight = map_tensor(self.source, read_ahead=True)
        if self.transposed:
            weight = weight.t()
        outs, ins = self.shape
        at_once = max(1, _PIECE // ins)
        for first in range(0, outs, at_once):
            try:
                yield Int8Matrix.nearest(weight[first : first + at_once])
            except ValueError as error:
                raise CheckpointError(f"{self.source.file}: {self.name} cannot be quantized: {error}") from error


class Int8File:
    """Matrices in order, each with its scales after it. Their places are known before the file is written."""

    def __init__(self, path: Path, matrices: Sequence[Matrix]) -> None:
        self.path = path
        self._matrices = matrices
        header, at = {}, 0
        for matrix in matrices:
            outs, ins = matrix.shape
            values, scale = at + outs * ins, at + outs * ins + 4 * outs
            header[matrix.name] = {"dtype": "I8", "shape": [outs, ins], "data_offsets": [at, values]}
            header[f"{matrix.name}.scale"] = {"dtype": "F32", "shape": [outs], "data_offsets": [values, scale]}
            at = scale
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % _ALIGNMENT)
        self._header = struct.pack("<Q", len(text)) + text
        self.nbytes = len(self._header) + at

    def locations(self) -> Iterator[Int8Location]:
        """Where each matrix lies."""
        at = len(self._header)
        for outs, ins in (matrix.shape for matrix in self._matrices):
            values = TensorLocation(self.path, at, "I8", (outs, ins))
            scale = TensorLocation(self.path, at + values.nbytes, "F32", (outs,))
            yield Int8Location(values, scale)
            at += values.nbytes + scale.nbytes

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
                    _write(matrix, stream, advance)
                stream.flush()
                os.fsync(stream.fileno())
            draft.rename(self.path)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


def _write(matrix: Matrix, stream: BinaryIO, advance: Advance) -> None:
    scales = []
    for piece in matrix.pieces():
        stream.write(raw(piece.values))
        scales.append(piece.scale)
        advance(piece.nbytes)
    stream.write(raw(torch.cat(scales)))
