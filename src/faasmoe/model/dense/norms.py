"""Root-mean-square norms (Zhang and Sennrich 2019) in one compiled call each, instead of six operations of torch.

Between two linear layers whose weights have gone through the caches an operation takes longer to start than to run.
Architectures round and scale in ways of their own, so which norm a module computes is found by running it.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.model.dense.replay.operation import NORMALISE, Kernel, Row, visible

KINDS = range(3)  # ways to round and to scale: `enum kind` in norms.c
_PROBED = 4096  # numbers, of which a norm that rounds elsewhere would differ in a thousand
_ALIKE = 0.99  # of them; sums are in another order than torch's, which now and then shows in a last bit


_NORM = struct.Struct("3qf")  # `struct norm` in norms.c
_normalise = LIBRARY.function("normalise", ADDRESS, ADDRESS, ADDRESS, INT)


class NormKernel(Kernel):
    """A norm of one of `KINDS`, as `replay.operation.Kernel`."""

    def __init__(self, weight: Tensor, kind: int, epsilon: float | None) -> None:
        self._weight = weight  # stays alive
        self._norm = np.frombuffer(_NORM.pack(weight.data_ptr(), len(weight), kind, epsilon), np.uint8)
        self._address = address(self._norm)

    def __call__(self, *tensors: Tensor) -> Tensor:
        """Contiguous `[..., width]` in bfloat16 to the same."""
        (x,) = tensors
        y = torch.empty_like(x)
        _normalise(self._address, x.data_ptr(), y.data_ptr(), x.numel() // len(self._weight))
        return y

    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        """See `Kernel`."""
        (x,), (y,) = tensors, results
        return NORMALISE, self._address, x.data_ptr(), y.data_ptr(), x.numel() // len(self._weight)


class StepNorm(nn.Module):
    """Stands in for an RMS norm whose weight is in bfloat16, and keeps it under its name."""

    def __init__(self, own: nn.Module, weight: nn.Parameter, kind: int) -> None:
        super().__init__()
        self.weight, self._width = weight, len(weight)
        self._norm = NormKernel(weight, kind, _epsilon(own))
        self._own: Callable[[Tensor], Tensor] = own.forward  # no module of the model any more

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same, as the norm's own up to the order of additions."""
        if x.dtype != torch.bfloat16 or x.shape[-1] != self._width:
            return self._own(x)
        return visible(self._norm, x.contiguous())


def take_over(model: nn.Module) -> None:
    """Put a `StepNorm` in the place of every norm in bfloat16 that computes what one of its kinds does."""
    for name, module in list(model.named_modules()):
        if _may_be(module) and (norm := _recognise(module)) is not None:
            model.set_submodule(name, norm)


def _may_be(module: nn.Module) -> bool:
    """Whether it has one vector of weights in bfloat16, one operand, and something to keep the root from 0."""
    parameters = dict(module.named_parameters(recurse=False))
    if list(parameters) != ["weight"] or list(module.children()):
        return False
    weight = parameters["weight"]
    return (
        weight.dim() == 1
        and weight.dtype == torch.bfloat16
        and weight.is_contiguous()
        and len(inspect.signature(module.forward).parameters) == 1
        and isinstance(_epsilon(module), float)
    )


def _epsilon(module: nn.Module) -> float | None:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


@torch.inference_mode()
def _recognise(module: nn.Module) -> StepNorm | None:
    weight = module.get_parameter("weight")
    width = len(weight)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, max(2, _PROBED // width), width, generator=generator)
    x[:, ::2] *= 1e-3  # small enough for epsilon to show
    x = x.bfloat16()
    wanted = module(x)
    for norm in (StepNorm(module, weight, kind) for kind in KINDS):
        got = norm(x)
        if got.dtype == wanted.dtype and got.shape == wanted.shape and _alike(got, wanted):
            return norm
    return None


def _alike(got: Tensor, wanted: Tensor) -> bool:
    """Nearly all are equal, the others by one unit in the last place."""
    equal = (got == wanted).float().mean().item()
    return equal >= _ALIKE and torch.allclose(got.float(), wanted.float(), rtol=2**-7, atol=1e-30)
