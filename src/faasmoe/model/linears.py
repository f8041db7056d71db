"""Linear layers of the dense part, on the kernel that is fastest for the rows of a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faasmoe.experts.kernels import linear, own_kernel
from faasmoe.experts.matvec import readable, supports
from faasmoe.experts.team import team


class StepLinear(nn.Module):
    """Stands in for an `nn.Linear` in bfloat16 and keeps its parameters under their names."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        rows = x.reshape(-1, self.in_features)
        if own_kernel(len(rows), self.weight) and supports(rows, self.weight, self.bias):
            y = team(torch.get_num_threads()).linear(rows, self.weight, self.bias)
        else:
            y = linear(rows, self.weight, self.bias, transposed=False)
        return y.view(*x.shape[:-1], self.out_features)


def use_own_kernels(model: nn.Module) -> None:
    """Put a `StepLinear` in the place of every linear layer whose weights our kernel reads."""
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and readable(layer.weight)  # a subclass may compute something else
    ]
    for name, layer in found:
        model.set_submodule(name, StepLinear(layer))
