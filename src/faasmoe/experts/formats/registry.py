"""All weight formats by name: the modules of this folder that define `FORMAT`."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts import formats
from faasmoe.experts.formats import dense
from faasmoe.experts.formats.base import Addresses, BlockKernel, Matrix, MatrixLocation, WeightFormat

DENSE = dense.FORMAT


def _found() -> dict[str, WeightFormat]:
    names = [module.name for module in iter_modules(formats.__path__, f"{formats.__name__}.")]
    modules = [import_module(name) for name in names if name != __name__]
    return {module.FORMAT.name: module.FORMAT for module in modules if hasattr(module, "FORMAT")}


FORMATS = _found()


def by_name(name: str) -> WeightFormat:
    """Raises `CheckpointError` if there is no such format."""
    try:
        return FORMATS[name]
    except KeyError:
        raise CheckpointError(f"no weight format {name!r}; there are {', '.join(sorted(FORMATS))}") from None


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
