"""Weight formats by name and by a weight."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats import REGISTERED, dense
from faasmoe.experts.formats.base import Addresses, BlockKernel, Matrix, MatrixLocation, WeightFormat

DENSE = dense.FORMAT


@cache
def by_name(name: str) -> WeightFormat:
    """The format of this name. Raises `CheckpointError` if there is none."""
    if name not in REGISTERED:
        raise CheckpointError(f"no weight format {name!r}; there are {', '.join(sorted(REGISTERED))}")
    found: WeightFormat = import_module(REGISTERED[name].module).FORMAT
    return found


def formats() -> list[WeightFormat]:
    """All registered formats."""
    return [by_name(name) for name in REGISTERED]


def format_of(weight: Matrix | MatrixLocation) -> WeightFormat:
    """The format of a loaded weight, or of one that is yet to be loaded."""
    return DENSE if isinstance(weight, Tensor) else by_name(weight.format)


def addresses(matrix: Matrix) -> Addresses | None:
    """A loaded weight for the compiled kernels of `kernels.matvec`; None: they cannot read it."""
    return format_of(matrix).addresses(matrix)


def block_kernel(matrix: Matrix) -> type[BlockKernel] | None:
    """The kernel that runs whole blocks of experts in the format of `matrix`; None: there is none."""
    name = format_of(matrix).block_kernel
    return _imported(name) if name else None


@cache
def _imported(name: str) -> type[BlockKernel]:
    module, _, attribute = name.partition(":")
    kernel: type[BlockKernel] = getattr(import_module(module), attribute)
    return kernel
