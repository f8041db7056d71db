"""The routed experts of a layer, with its shared experts meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from faasmoe.model.dense.linears import Crew
from faasmoe.model.dense.overlap import Overlapped


class RoutedExperts(Protocol):
    """Runs the routed experts of a layer."""

    def __call__(
        self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Callable[[], None]
    ) -> Tensor:
        """`hidden` `[T, H]`, `index` and `weight` `[T, K]` to the weighted sums `[T, H]` in `hidden`'s dtype.

        `meanwhile` is called once or not at all, when the experts have been sent for.
        """


@dataclass(frozen=True, slots=True)
class LayerExperts:
    """Calls `routed` for a layer, as `replay.operation.Boundary`."""

    routed: RoutedExperts
    layer: int
    shared: Sequence[Overlapped]
    crew: Crew

    def __call__(self, hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """See `RoutedExperts`."""
        return self._run(hidden, index, weight, lambda: self.beside(hidden))

    def beside(self, hidden: Tensor, *_: Tensor) -> None:
        """Run the shared experts that wait for the routed ones, or that are called after them."""
        self.crew.team.rest()  # else the team would learn that these come at once after the layers before the call
        for each in self.shared:
            each.run(hidden)

    def rest(self, hidden: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """The routed experts alone."""
        return self._run(hidden, index, weight, lambda: None)

    def bound(
        self, tensors: Sequence[Tensor], result: Tensor, alone: Callable[[], None], after: Callable[[], None]
    ) -> Callable[[], None]:
        """See `Boundary`."""
        hidden, index, weight = tensors

        def run() -> None:
            left = [after]

            def meanwhile() -> None:
                left.clear()
                alone()

            self.crew.team.rest()  # the experts need the cores
            result.copy_(self.routed(self.layer, hidden, index, weight, meanwhile))
            for each in left:
                each()

        return run

    def _run(self, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Callable[[], None]) -> Tensor:
        with self.crew.resting():  # the experts need the cores
            return self.routed(self.layer, hidden, index, weight, meanwhile)
