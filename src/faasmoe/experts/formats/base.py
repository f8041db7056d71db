"""The protocol of a weight format: all that the rest of the project asks about a format.

A format is asked, in the order of a weight's life:

1. `declared` and `found`: whether a checkpoint holds weights of the format, and which tensors make up each of them;
2. `converted`, `convert` and `arrays`: how a plain weight is converted, and what a file of converted weights holds;
3. `location` and `entry`: where the bytes of a weight lie. The location's `memory` is what the weight takes once it is
   loaded, its `map` loads it;
4. `addresses`, `block_kernel` and `widened`: how kernels read the loaded weight.

A module of this folder defines a subclass of `WeightFormat` and one object of it, `FORMAT`. Functions import all of
them, so they need numpy and nothing else. Arrays are numpy's, with bfloat16 as bits (`experts.dtypes`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.kernels.kernel_format import KernelFormat
from faasmoe.experts.mapping import TensorLocation

MULTIPLE = 16  # the compiled kernels take matrices whose number of columns is a multiple of it


class Addresses(NamedTuple):
    """A matrix as the compiled kernels (`experts/kernels/c/linear`) read it."""

    weights: int  # address
    scales: int  # address; 0: there are none
    format: KernelFormat


class Matrix(Protocol):
    """A loaded weight: an array if it is not quantised. A dense part's arrays are torch tensors."""

    @property
    def shape(self) -> Sequence[int]:
        """`[out, in]`."""

    @property
    def nbytes(self) -> int:
        """Size in bytes, everything included."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Some of its rows."""


class QuantisedMatrix(Matrix, Protocol):
    """A loaded weight that is no plain array."""

    @property
    def format(self) -> str:
        """Name of the weight's format."""


class MatrixLocation(Protocol):
    """The location of one weight's arrays in files. A `TensorLocation` is one of the format `dense`."""

    @property
    def format(self) -> str:
        """Name of the weight's format."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight, which need not be that of one of its arrays."""

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """The weight's arrays, in the order of `WeightFormat.arrays`."""

    @property
    def nbytes(self) -> int:
        """Size in files, in bytes."""

    def memory(self, width: int) -> int:
        """Bytes of the loaded weight, in a model that computes in a dtype of `width` bytes."""

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Matrix:
        """The weight, sharing the files' pages where it can.

        A plain one is rounded to `dtype` (`F32`, `BF16`), if that is given and does not hold its numbers. `read_ahead`
        is as for `map_array`. Raises `CheckpointError` as `map_array` does.
        """


class BlockKernel(Protocol):
    """A block of experts, ready to be run by one compiled call. Types of the operands are those of `experts.expert`."""

    address: int
    """Of the `Block` of `c/expert/fused.c` that a compiled function runs."""

    def __init__(self, experts: Any, form: Any, dtype: str) -> None:
        """Raises `ValueError` for experts that `supports` refuses."""

    @staticmethod
    def supports(experts: Any, form: Any, dtype: str) -> bool:
        """Whether the kernel takes experts of these `ExpertWeights` and this `ExpertForm` for rows in `dtype`.

        That is `F32` or `BF16`, in which the model computes.
        """

    def forward(self, request: Any, sums: NDArray[np.float32]) -> None:
        """Add each row's weighted sum over the experts to `sums` `[T, H]`, for a `Request` in that dtype."""


class WeightFormat(ABC):
    """A weight format: it recognises, locates, loads, reads and makes the weights of its kind."""

    name: ClassVar[str]
    """In artifacts, and as the value of `--quantize`."""

    block_kernel: ClassVar[str] = ""
    """`module:class` of the kernel that runs a whole block of experts, a `BlockKernel`; empty: there is none."""

    head: ClassVar[str] = ""
    """Name of the format in which `--quantize` keeps the layer that gives logits; empty: this one."""

    unneeded: ClassVar[tuple[str, ...]] = ()
    """Endings of the names of tensors that come with weights in the format, and that the weights do not depend on."""

    kept_as: ClassVar[str] = ""
    """Name of the format in which a copy of the weights is made and used; empty: weights are used as they are."""

    multiple: ClassVar[int] = 1
    """`convert` takes weights whose number of inputs is a multiple of it."""

    def declared(self, settings: Mapping[str, Any]) -> bool:
        """Whether a config's `quantization_config` says that the weights are in this format.

        `settings` is not trusted: a value may have any type.
        """
        return False

    def found(
        self, tensors: Mapping[str, TensorLocation], settings: Mapping[str, Any]
    ) -> Mapping[str, Sequence[str]]:
        """The weights that the tensors of a checkpoint hold in this format: name to names of the arrays, in order.

        The name is the one that a plain tensor of the same weight would have. A weight is `[out, in]`, or
        `[experts, out, in]` with `experts` as the first dimension of every array. `settings` are those that were
        `declared`; empty if the config declares none, and then names, dtypes and shapes have to tell. Raises
        `CheckpointError` for arrays that do not go together.
        """
        return {}

    @abstractmethod
    def location(self, parts: Sequence[TensorLocation]) -> MatrixLocation:
        """The location of a weight whose arrays lie at `parts`, as its `MatrixLocation.parts` were."""

    def entry(self, location: MatrixLocation, index: int) -> MatrixLocation:
        """The location of one expert's weight in that of a weight `[experts, out, in]`."""
        return self.location([part[index] for part in location.parts])

    @abstractmethod
    def arrays(self, matrix: Any) -> tuple[NDArray[Any], ...]:
        """The arrays of a loaded weight, in the order in which files hold them."""

    def converted(self, name: str, shape: tuple[int, int]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The tensors of a converted weight `name` of `shape` `[out, in]`: names to dtypes and shapes, in order.

        Their first dimension is `out`. All but the first are small: they are held until the first has been written.
        """
        raise NotImplementedError(f"nothing is converted to {self.name}")

    def convert(self, weight: NDArray[Any]) -> QuantisedMatrix:
        """Rows of a plain weight, `[n, in]`, converted. Raises `ValueError` for a weight that is not finite."""
        raise NotImplementedError(f"nothing is converted to {self.name}")

    def kept(self, name: str, location: MatrixLocation) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The tensors of a weight's copy in `kept_as`, as `converted` has them; the copy is what `location` maps to."""
        raise NotImplementedError(f"weights in {self.name} are not copied")

    def addresses(self, matrix: Any) -> Addresses | None:
        """A loaded weight for the compiled kernels (`experts/kernels/c/linear`); None: they cannot read it.

        Experts and the dense part's linear layers whose weights these kernels cannot read compute with those that are
        `widened` at every call, by the same kernels.
        """
        return None

    @abstractmethod
    def widened(self, matrix: Any, rows: slice) -> NDArray[np.float32]:
        """Some rows of a loaded weight as numbers, `[n, in]`: what the weight means. Not to be written to."""
