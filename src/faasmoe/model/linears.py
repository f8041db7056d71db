"""Linear layers of the dense part, on the kernel that is fastest for the rows of a step, and the threads for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from faasmoe.experts.int8 import Int8Matrix, Matrix
from faasmoe.experts.kernels import linear, own_kernel
from faasmoe.experts.matvec import linear_rows, readable, supports
from faasmoe.experts.team import Team

_MANY_ROWS = 32  # from here on torch's other work, attention above all, is worth several threads
_SMALL_BYTES = 256 << 10  # of a weight that one thread has read before another is awake


class Crew:
    """The threads of a dense part: our kernels' or torch's. Torch's look for work as well, so not both at once."""

    def __init__(self) -> None:
        self._threads = 1
        self.team = Team(1)
        self.alone = False  # layers run on the calling thread
        self._layer: StepLinear | None = None  # one of those that are ours

    def start(self, threads: int) -> None:
        """Have so many threads from now on. Until then there is the caller's alone, and the process may be forked."""
        self._threads = threads
        self.team = Team(threads)

    def begin(self, rows: int) -> None:
        """Before a step of so many rows, on the thread that runs it."""
        ours = self._layer is not None and own_kernel(rows, self._layer.weight) and rows < _MANY_ROWS
        torch.set_num_threads(1 if ours else self._threads)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """While it is entered layers run on the calling thread alone: others need the cores."""
        self.team.rest()
        self.alone = True
        try:
            yield
        finally:
            self.alone = False

    def take_over(self, model: nn.Module, int8: Mapping[str, Int8Matrix] | None = None) -> None:
        """Put a `StepLinear` in the place of every linear layer whose weights our kernel reads.

        The layers named in `int8` compute with these weights instead of their own.
        """
        weights = int8 or {}
        found = [
            (name, layer, weights.get(name, layer.weight))
            for name, layer in model.named_modules()
            if type(layer) is nn.Linear  # a subclass may compute something else
        ]
        for name, layer, weight in found:
            if readable(weight):
                self._layer = StepLinear(layer, weight, self)
                model.set_submodule(name, self._layer)


class StepLinear(nn.Module):
    """Stands in for an `nn.Linear` in bfloat16 and keeps its parameters under their names, but for a weight in int8."""

    def __init__(self, layer: nn.Linear, weight: Matrix, crew: Crew) -> None:
        super().__init__()
        self.weight, self.bias = weight, layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self._crew = crew

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        rows = x.reshape(-1, self.in_features)
        if not (own_kernel(len(rows), self.weight) and supports(rows, self.weight, self.bias)):
            y = linear(rows, self.weight, self.bias, transposed=False)
        elif self._crew.alone or self.weight.nbytes < _SMALL_BYTES:
            y = linear_rows(rows, self.weight, self.bias)
        else:
            y = self._crew.team.linear(rows, self.weight, self.bias)
        return y.view(*x.shape[:-1], self.out_features)
