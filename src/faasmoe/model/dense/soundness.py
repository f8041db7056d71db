"""Checks that the dense part's weights are finite: a NaN among them spoils every answer without an error."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.registry import format_of
from faasmoe.model.dense.linear.linears import FormatLinear
from faasmoe.model.tensors import as_tensor

_SMALL = 1 << 18  # numbers: norms, biases and routers, which are read in no time


def check_small(model: nn.Module) -> None:
    """Raises `CheckpointError` for a small tensor that holds a number that is not finite.

    Routers are small, and their output is finite even if they choose by NaN. A NaN in a large tensor shows in the
    model's output (`blame`).
    """
    _check((name, tensor) for name, tensor in _tensors(model) if tensor.numel() <= _SMALL)


def blame(model: nn.Module) -> None:
    """Raises `CheckpointError` for the first tensor that holds a number that is not finite. Reads all of them."""
    _check(_tensors(model))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and stored buffers, by their names in the model."""
    yield from model.state_dict().items()
    for name, module in model.named_modules():
        # a quantised weight is no parameter
        if isinstance(module, FormatLinear) and not isinstance(module.weight, Tensor):
            arrays = format_of(module.weight).arrays(module.weight)
            yield from ((f"{name}.weight", as_tensor(array)) for array in arrays)


def _check(tensors: Iterator[tuple[str, Tensor]]) -> None:
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            continue
        # torch cannot tell for each type of eight bits
        numbers = tensor.float() if tensor.itemsize == 1 else tensor
        if not numbers.isfinite().all():
            raise CheckpointError(f"the tensor {name} holds a non-finite weight (NaN or infinity)")
