"""Linear layers of the dense part, on the kernel that is fastest for the rows of a step, and the threads for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from faasmoe.experts.formats.base import Matrix
from faasmoe.model.dense.linear.backend import linear, own_kernel
from faasmoe.model.dense.linear.linear_group import Layers, fit
from faasmoe.model.dense.linear.matvec import readable
from faasmoe.model.dense.linear.team import Team, TeamRun
from faasmoe.model.dense.replay.operation import visible

MANY_ROWS = 32  # from here on torch's other work, attention above all, is worth several threads
_SMALL_BYTES = 256 << 10  # of weights that one thread has read before another is awake


class Crew:
    """The threads of a dense part: our kernels' or torch's. Torch's look for work as well, so not both at once."""

    def __init__(self) -> None:
        self._threads = 1
        self.team = Team(1)
        self.alone = False  # layers run on the calling thread
        self._layer: StepLinear | None = None  # one of those that are ours
        # while the crew learns: with x, and a copy of it
        self.calls: list[tuple[StepLinear, Tensor, Tensor]] | None = None

    def start(self, threads: int) -> None:
        """Use so many threads from now on. Until then there is only the caller's, so the process may be forked."""
        self._threads = threads
        self.team = Team(threads)

    def begin(self, rows: int) -> None:
        """Before a step of so many rows, on the thread that runs it."""
        ours = self._layer is not None and own_kernel(rows, self._layer.weight) and rows < MANY_ROWS
        torch.set_num_threads(1 if ours else self._threads)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """In this context layers run on the calling thread alone, because experts need the cores."""
        self.team.rest()
        self.alone = True
        try:
            yield
        finally:
            self.alone = False

    @contextmanager
    def learning(self) -> Iterator[None]:
        """In this context the model runs once: layers that it calls one after the other with the same x form groups."""
        calls: list[tuple[StepLinear, Tensor, Tensor]] = []
        self.calls = calls
        try:
            yield
        finally:
            self.calls = None
        layers = [layer for layer, _, _ in calls]
        group: list[StepLinear] = []
        for (layer, x, copy), before in zip(calls, [None, *calls], strict=False):
            same = before is not None and before[1] is x and torch.equal(before[2], copy)
            if not (same and fit([(member.weight, member.bias) for member in (*group, layer)])):
                _form(group)
                group = []
            if layers.count(layer) == 1:
                group.append(layer)
        _form(group)

    def take_over(self, model: nn.Module, quantised: Mapping[str, Matrix] | None = None) -> None:
        """Put a `StepLinear` in the place of every linear layer whose weights our kernels read.

        The layers named in `quantised` compute with these weights instead of their own: in a `StepLinear`, or in a
        `FormatLinear` if our kernels do not read their format.
        """
        weights = quantised or {}
        found = [
            (name, layer, weights.get(name, layer.weight))
            for name, layer in model.named_modules()
            if type(layer) is nn.Linear  # a subclass may compute something else
        ]
        for name, layer, weight in found:
            if readable(weight) and fit([(weight, layer.bias)]):
                self._layer = StepLinear(layer, weight, self)
                model.set_submodule(name, self._layer)
            elif name in weights:
                model.set_submodule(name, FormatLinear(layer, weight))


class LinearGroup:
    """Layers that a model calls one after the other with the same x: the first call runs all of them."""

    def __init__(self, members: list[StepLinear]) -> None:
        self._members = members
        self.layers = Layers(*((member.weight, member.bias) for member in members))
        self.small = sum(member.weight.nbytes for member in members) < _SMALL_BYTES
        self._x: Tensor | None = None  # for which the results are
        self._results: dict[StepLinear, Tensor] = {}  # that nobody has asked for yet

    def take(self, member: StepLinear, x: Tensor) -> Tensor | None:
        """A member's result for `x`, if that has been computed with the others'."""
        if x is not self._x:
            return None
        result = self._results.pop(member, None)
        if not self._results:
            self._x = None
        return result

    def keep(self, member: StepLinear, x: Tensor, results: list[Tensor]) -> Tensor:
        """`results` of all for `x`. Returns that of `member`."""
        if len(results) == 1:
            return results[0]
        self._x, self._results = x, dict(zip(self._members, results, strict=True))
        return self._results.pop(member)


def _form(members: list[StepLinear]) -> None:
    if len(members) > 1:
        group = LinearGroup(members)
        for member in members:
            member.group = group


class FormatLinear(nn.Module):
    """Stands in for an `nn.Linear`, with a weight in any format that `WeightFormat.widened` reads.

    Runs on torch's threads, which are one in a step of few rows if other layers are `StepLinear`s. Keeps the names of
    the layer's parameters, but for a quantised weight, which is none.
    """

    def __init__(self, layer: nn.Linear, weight: Matrix) -> None:
        super().__init__()
        self.weight, self.bias = weight, layer.bias
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        rows = x.reshape(-1, self.in_features)
        return linear(rows, self.weight, self.bias).view(*x.shape[:-1], self.out_features)


class StepLinear(FormatLinear):
    """Stands in for an `nn.Linear` whose weight the compiled kernels read."""

    def __init__(self, layer: nn.Linear, weight: Matrix, crew: Crew) -> None:
        super().__init__(layer, weight)
        self._crew = crew
        self.group = LinearGroup([self])

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        if (result := self.group.take(self, x)) is not None:
            return result
        crew, group = self._crew, self.group
        if crew.calls is not None:
            crew.calls.append((self, x, x.clone()))
        rows = x.reshape(-1, self.in_features)
        shape = x.shape[:-1]
        if x.dtype == group.layers.dtype and own_kernel(len(rows), self.weight):
            alone = crew.alone or group.small
            run = TeamRun(crew.team, group.layers, alone)
            return group.keep(self, x, [y.view(*shape, y.shape[1]) for y in visible(run, rows.contiguous())])
        return linear(rows, self.weight, self.bias).view(*shape, self.out_features)
