"""What the formats of GGUF share: weights whose rows are sequences of blocks of bytes, read as they lie in the file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts.arrays import address, in_memory
from faasmoe.experts.formats.base import Addresses, Matrix, MatrixLocation, WeightFormat
from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation, map_array

Blocks = NDArray[np.uint8]  # [blocks, bytes of one]


class GgufLayout(NamedTuple):
    """The size of a format's blocks."""

    format: str  # name of the format
    weights: int  # of a row, that a block holds
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufMatrix:
    """A weight `[out, in]`."""

    layout: GgufLayout
    blocks: NDArray[np.uint8]  # [out, in / layout.weights * layout.nbytes]

    @property
    def format(self) -> str:
        """See `QuantisedMatrix`."""
        return self.layout.format

    @property
    def shape(self) -> tuple[int, int]:
        """`[out, in]`."""
        return len(self.blocks), self.blocks.shape[1] // self.layout.nbytes * self.layout.weights

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.blocks.nbytes

    def __getitem__(self, rows: slice) -> GgufMatrix:
        """Some of its rows."""
        return GgufMatrix(self.layout, self.blocks[rows])


@dataclass(frozen=True, slots=True)
class GgufLocation:
    """The location of a weight `[out, in]`, or of a layer's experts `[experts, out, in]`."""

    layout: GgufLayout
    blocks: TensorLocation  # U8 [..., out, in / layout.weights * layout.nbytes]

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return self.layout.format

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        *rest, width = self.blocks.shape
        return (*rest, width // self.layout.nbytes * self.layout.weights)

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return (self.blocks,)

    @property
    def nbytes(self) -> int:
        """Size in bytes, scales included."""
        return self.blocks.nbytes

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: blocks stay as they are in a model of any dtype."""
        return self.nbytes

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Matrix:
        """See `MatrixLocation`."""
        return GgufMatrix(self.layout, map_array(self.blocks, read_ahead))


class GgufFormat(WeightFormat):
    """A weight is one tensor, the bytes of its blocks: uint8 `[out, in / layout.weights * layout.nbytes]`.

    safetensors have no such tensors, so none are recognised in a checkpoint.
    """

    layout: ClassVar[GgufLayout]
    kernel: ClassVar[KernelFormat]
    block_kernel = "faasmoe.experts.fused:FusedExperts"

    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """See `WeightFormat`. Raises `CheckpointError` for an array whose rows are no whole blocks."""
        (blocks,) = parts
        if blocks.dtype != "U8" or len(blocks.shape) < 2 or blocks.shape[-1] % self.layout.nbytes:
            raise CheckpointError(
                f"{blocks.file.name}: {blocks.dtype} {list(blocks.shape)} is no weight in {self.name}, "
                f"whose rows are U8, blocks of {self.layout.nbytes} bytes"
            )
        return GgufLocation(self.layout, blocks)

    def arrays(self, matrix: GgufMatrix) -> tuple[NDArray[Any], ...]:
        """See `WeightFormat`."""
        return (matrix.blocks,)

    def addresses(self, matrix: GgufMatrix) -> Addresses | None:
        """See `WeightFormat`: matrices in memory with contiguous rows of whole blocks."""
        blocks = matrix.blocks
        if in_memory(blocks, "U8") and blocks.ndim == 2 and blocks.shape[1] % self.layout.nbytes == 0:
            return Addresses(address(blocks), 0, self.kernel)
        return None

    def widened(self, matrix: GgufMatrix, rows: slice) -> NDArray[np.float32]:
        """See `WeightFormat`."""
        part = matrix[rows]
        return self.numbers(part.blocks.reshape(-1, self.layout.nbytes)).reshape(part.shape)

    @staticmethod
    @abstractmethod
    def numbers(blocks: Blocks) -> NDArray[np.float32]:
        """The weights that blocks hold, `[blocks, ...]`."""


def halves(columns: Blocks) -> NDArray[np.float32]:
    """Float16 numbers that lie in columns of blocks, `[blocks, bytes / 2]`."""
    return np.ascontiguousarray(columns).view("<f2").astype(np.float32)
