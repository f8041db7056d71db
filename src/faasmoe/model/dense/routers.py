"""Linear layers that modules compute by `F.linear` with a weight of their own, as routers do, on our kernels.

torch's own product takes six times as long as ours for the one row of a router, whose weights are few. A router that
widens its weight to float32 in each step (DeepSeek V3's) keeps it so.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faasmoe.model.adapter.forwards import call_instead, called_function
from faasmoe.model.dense.linear.backend import own_kernel
from faasmoe.model.dense.linear.linear_group import Layers, fit
from faasmoe.model.dense.linear.linears import MANY_ROWS, Crew
from faasmoe.model.dense.linear.matvec import readable
from faasmoe.model.dense.linear.team import TeamRun
from faasmoe.model.dense.replay.operation import visible

_NAME = "F"  # by which transformers' modules know torch.nn.functional


class RouterLinear:
    """Stands in for `torch.nn.functional` in the forward of one module."""

    def __init__(self, module: nn.Module, crew: Crew) -> None:
        """`module` has a `weight` `[out, in]` and maybe a `bias` `[out]`."""
        self._module, self._crew = module, crew
        self._read()

    def _read(self) -> None:
        self._weight, self._bias = _weight_and_bias(self._module)
        self._layers = Layers((self._weight, self._bias))

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """As torch's. `x` `[..., in]` to `[..., out]`."""
        if self._crew.calls is not None:
            self._widen(weight)
        rows = x.reshape(-1, self._layers.ins)
        ours = weight is self._weight and bias is self._bias and x.dtype == self._layers.dtype
        if not ours or not own_kernel(len(rows), weight):
            return F.linear(x, weight, bias)
        alone = (
            self._crew.alone or len(rows) < MANY_ROWS
        )  # helpers have begun with shared experts (`replay.early`)
        run = TeamRun(self._crew.team, self._layers, alone)
        (y,) = visible(run, rows.contiguous())
        return y.view(*x.shape[:-1], y.shape[1])

    def _widen(self, weight: Tensor) -> None:
        """Have the module keep its weight in float32, if that is what it computes with, in every step.

        Torch's products of float32 give a row other bits with other numbers of rows.
        """
        its = self._weight
        if weight is its or weight.dtype != torch.float32 or not torch.equal(weight, its.float()):
            return
        with torch.inference_mode(False):
            wide = nn.Parameter(its.float(), requires_grad=False)
        if fit([(wide, self._bias)]):
            self._module.register_parameter("weight", wide)
            self._read()


def take_over(model: nn.Module, crew: Crew) -> None:
    """Have every module of `model` that calls `F.linear` and has a weight that our kernels read use these."""
    for module in model.modules():
        weight, bias = _weight_and_bias(module)
        if weight is None or weight.dim() != 2 or not _calls_linear(module):
            continue
        if readable(weight) and fit([(weight, bias)]):
            call_instead(module, _NAME, RouterLinear(module, crew))


def _weight_and_bias(module: nn.Module) -> tuple[Any, Any]:
    """Its own `weight` and `bias`, or None for what it lacks."""
    parameters = dict(module.named_parameters(recurse=False))
    return parameters.get("weight"), parameters.get("bias")


def _calls_linear(module: nn.Module) -> bool:
    forward: Any = type(module).forward
    return called_function(module, _NAME) is F and "linear" in forward.__code__.co_names
