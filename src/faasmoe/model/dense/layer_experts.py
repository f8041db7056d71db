"""The routed experts of a layer, with its shared experts meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from faasmoe.model.dense.linear.linears import Crew
from faasmoe.model.dense.overlap import Overlapped
from faasmoe.model.dense.replay.operation import Boundary


def _nothing() -> None:
    pass


@dataclass(slots=True)
class Meanwhile:
    """What a dense part has to do that takes nothing of a layer's experts: called once or not at all, as they run.

    It may be at work before they are sent for and when they have answered, but for the time from `pause` to `resume`.
    """

    work: Callable[[], None]
    pause: Callable[[], None] = _nothing
    resume: Callable[[], None] = _nothing
    done: bool = False

    def __call__(self) -> None:
        """Do it on this thread."""
        self.done = True
        self.work()


class RoutedExperts(Protocol):
    """Runs the routed experts of a layer."""

    def __call__(self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
        """`hidden` `[T, H]`, `index` and `weight` `[T, K]` to the weighted sums `[T, H]` in `hidden`'s dtype."""


@dataclass(frozen=True, slots=True)
class LayerExperts(Boundary):
    """Calls `routed` for a layer, as `replay.operation.Boundary`."""

    routed: RoutedExperts
    layer: int
    shared: Sequence[Overlapped]
    crew: Crew

    def __call__(self, *tensors: Tensor) -> Tensor:
        """`hidden`, `index` and `weight`: see `RoutedExperts`."""
        return self._run(tensors, lambda: self.beside(*tensors))

    def beside(self, *tensors: Tensor) -> None:
        """Run the shared experts that wait for the routed ones, or that are called after them."""
        hidden, _, _ = tensors
        self.crew.team.rest()  # else the team would learn that these come at once after the layers before the call
        for each in self.shared:
            each.run(hidden)

    def rest(self, *tensors: Tensor) -> Tensor:
        """The routed experts alone."""
        return self._run(tensors, lambda: None)

    def bound(
        self, tensors: Sequence[Tensor], result: Tensor, alone: Callable[[], None], after: Callable[[], None]
    ) -> Callable[[], None]:
        """See `Boundary`."""
        hidden, index, weight = tensors
        team = self.crew.team
        meanwhile = Meanwhile(alone, pause=team.rest, resume=team.resume)

        def run() -> None:
            meanwhile.done = False
            try:
                result.copy_(self.routed(self.layer, hidden, index, weight, meanwhile))
            except BaseException:
                team.drop()
                raise
            if not meanwhile.done:
                after()

        return run

    def _run(self, tensors: Sequence[Tensor], work: Callable[[], None]) -> Tensor:
        hidden, index, weight = tensors
        with self.crew.resting():  # the experts need the cores
            return self.routed(self.layer, hidden, index, weight, Meanwhile(work))
