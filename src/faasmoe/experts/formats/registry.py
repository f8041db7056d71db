"""Weight formats by name, by a config, by the tensors of a checkpoint, and by a weight."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats import REGISTERED, dense
from faasmoe.experts.formats.base import Addresses, BlockKernel, Matrix, MatrixLocation, WeightFormat
from faasmoe.experts.mapping import TensorLocation

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


def declared(settings: Mapping[str, Any]) -> WeightFormat | None:
    """The format that a config's `quantization_config` declares; None: no registered one."""
    return next((format for format in formats() if format.declared(settings)), None)


def found(
    tensors: Mapping[str, TensorLocation], settings: Mapping[str, Any]
) -> tuple[dict[str, MatrixLocation], dict[str, TensorLocation]]:
    """The weights that tensors of a checkpoint make up in the registered formats, and the tensors that are left.

    What a format does not need (`WeightFormat.unneeded`) is in neither, if it recognises a weight. If a config
    declares a format by `settings`, no other format is asked. Raises `CheckpointError` if two formats recognise one
    tensor, or the arrays of a weight do not go together.
    """
    announced = declared(settings) if settings else None
    weights: dict[str, MatrixLocation] = {}
    left = dict(tensors)
    for format in [announced] if announced else formats():
        for name, arrays in format.found(tensors, settings).items():
            if not left.keys() >= set(arrays):
                raise CheckpointError(f"two weight formats recognise the tensors {', '.join(arrays)}")
            weights[name] = format.location([left.pop(array) for array in arrays])
    needless = tuple(
        end for name in {weight.format for weight in weights.values()} for end in by_name(name).unneeded
    )
    left = {name: tensor for name, tensor in left.items() if not name.endswith(needless)}
    if twice := sorted(weights.keys() & left.keys()):
        raise CheckpointError(f"{left[twice[0]].file} holds the weight {twice[0]} both plain and quantized")
    return weights, left


def format_of(weight: Matrix | MatrixLocation) -> WeightFormat:
    """The format of a loaded weight, or of one that is yet to be loaded."""
    return by_name(getattr(weight, "format", DENSE.name))  # an array knows of no formats


def addresses(matrix: Matrix, dtype: str | None = None) -> Addresses | None:
    """A loaded weight for the compiled kernels; None: they cannot read it, or not multiply it with rows in `dtype`.

    `dtype`: `F32` or `BF16`; by default that which the weight's format has for rows (`KernelFormat.rows`).
    """
    found = format_of(matrix).addresses(matrix)
    if found is None or dtype is None or found.format.rows == dtype:
        return found
    format = found.format.for_rows(dtype)
    return None if format is None else found._replace(format=format)


def block_kernel(matrix: Matrix) -> type[BlockKernel] | None:
    """The kernel that runs whole blocks of experts in the format of `matrix`; None: there is none."""
    name = format_of(matrix).block_kernel
    return _imported(name) if name else None


@cache
def _imported(name: str) -> type[BlockKernel]:
    module, _, attribute = name.partition(":")
    kernel: type[BlockKernel] = getattr(import_module(module), attribute)
    return kernel
