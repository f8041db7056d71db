"""An expert as torch computes it, in the dtype of its tensors, to hold ours against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.payload import Request
from faasmoe.model.tensors import as_array

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class TorchExpert:
    """The fields are those of `ExpertWeights`, all of them tensors."""

    first: tuple[Tensor, ...]
    down: Tensor
    first_bias: tuple[Tensor, ...] = ()
    down_bias: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> TorchExpert:
        """With other tensors."""
        bias = None if self.down_bias is None else change(self.down_bias)
        return TorchExpert(
            tuple(map(change, self.first)), change(self.down), tuple(map(change, self.first_bias)), bias
        )

    @property
    def weights(self) -> ExpertWeights:
        """The same memory for our kernels."""
        bias = None if self.down_bias is None else as_array(self.down_bias)
        return ExpertWeights(
            tuple(map(as_array, self.first)), as_array(self.down), tuple(map(as_array, self.first_bias)), bias
        )


def gated(form: Gate, gate: Tensor, up: Tensor | None) -> Tensor:
    act = ACTIVATIONS[form.activation]
    if up is None:
        return act(gate)
    if form.kind == "glu":
        return act(gate) * up
    if form.kind == "clamped_out":
        return act(gate).clamp(max=form.limit) * up.clamp(-form.limit, form.limit)
    gate, up = gate.clamp(max=form.limit), up.clamp(-form.limit, form.limit)
    if form.kind == "clamped_in":
        return act(gate) * up
    return (up + 1) * (gate * torch.sigmoid(form.alpha * gate))


def forward(x: Tensor, expert: TorchExpert, form: ExpertForm) -> Tensor:
    """`[n, H]` to `[n, H]`."""
    biases = expert.first_bias or (None,) * len(expert.first)
    outs = [_linear(x, w, b, form.transposed) for w, b in zip(expert.first, biases, strict=True)]
    if len(outs) == 1 and form.gate.kind != "none":
        outs = [outs[0][:, ::2], outs[0][:, 1::2]] if form.interleaved else list(outs[0].chunk(2, dim=1))
    gate, up = (*outs, None)[:2]
    assert gate is not None
    return _linear(gated(form.gate, gate, up), expert.down, expert.down_bias, form.transposed)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    return F.linear(x, weight.t() if transposed else weight, bias)


def sums_of(experts: FusedExperts, x: Tensor) -> NDArray[np.float32]:
    """What the first of `experts` gives for rows `[n, H]`, in float32."""
    index, sums = np.arange(len(x), dtype=np.int32), np.zeros(x.shape, np.float32)
    zeros, ones = np.zeros_like(index), np.ones(len(x), np.float32)
    experts.forward(Request(layer=0, rows=as_array(x), row=index, expert=zeros, weight=ones), sums)
    return sums


def assert_stands_for(weights: ExpertWeights, means: TorchExpert, form: ExpertForm, most: float) -> None:
    """The fused kernel errs by at most `most` of the result's size. Rows have the same bits in any company."""
    x = torch.randn(21, means.down.shape[0], generator=torch.Generator().manual_seed(0)).bfloat16()
    experts = FusedExperts([weights], form, "BF16")
    together, wanted = sums_of(experts, x), forward(x.double(), means.map(Tensor.double), form).numpy()
    assert np.linalg.norm(together - wanted) < most * np.linalg.norm(wanted)
    for i in range(len(x)):
        assert np.array_equal(sums_of(experts, x[i : i + 1])[0], together[i])
