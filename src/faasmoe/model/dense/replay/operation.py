"""What a step consists of, as a recorder sees it: torch's operations, kernels of ours, and boundaries.

Kernels and boundaries take tensors and compute outside of torch. They run by `visible`, which costs nothing while
nobody records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

Row = tuple[int, ...]
"""A step's kind and words: `struct step` in `c/dense/steps.c`."""

NORMALISE, TURN_HALVES, TEAM_RUN, TEAM_BEGIN, TEAM_END, ATTEND, ADD, MULTIPLY, CONVERT, GATHER, ATTEND_LATENT = (
    range(11)
)
"""Kinds of steps there."""


class PreparedStep(NamedTuple):
    """A step that needs something done each time before the list that it is in runs."""

    row: Row
    prepare: Callable[[], None]


class Kernel(ABC):
    """Computes new tensors from others, and nothing else."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, *tensors: Tensor) -> Any:
        """A tensor, or a list of them."""

    @abstractmethod
    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        """The step that writes what `__call__` returns to `results`. Both stay where they are, and are kept alive."""

    def in_two(self) -> tuple[Kernel, Kernel] | None:
        """What begins with it, for helpers to work on, and what ends it with the same tensors, if it can be so.

        The second takes what the first returns as well.
        """
        return None


class Boundary(ABC):
    """Computes a tensor from others and from what is not theirs: states of sequences, functions of a platform."""

    __slots__ = ()

    @abstractmethod
    def __call__(self, *tensors: Tensor) -> Tensor:
        """A new tensor."""

    @abstractmethod
    def beside(self, *tensors: Tensor) -> None:
        """Compute what `__call__` computes meanwhile, so that it is seen apart from the call."""

    @abstractmethod
    def rest(self, *tensors: Tensor) -> Tensor:
        """What `__call__` returns, after `beside`."""

    @abstractmethod
    def bound(
        self, tensors: Sequence[Tensor], result: Tensor, alone: Callable[[], None], after: Callable[[], None]
    ) -> Callable[[], None]:
        """What writes to `result` what `__call__` would return for what is in `tensors` when it is called.

        It runs what `beside` computed once: by `alone` meanwhile, on the calling thread, or by `after` at its end.
        """

    def step(self, tensors: Sequence[Tensor], result: Tensor) -> PreparedStep | None:
        """What does as much as `bound` without Python, if there is such a step. Nothing was computed beside it."""
        return None


class StateBoundary(Boundary):
    """A boundary for the states of sequences. Nothing is computed beside it."""

    __slots__ = ()

    def beside(self, *_: Tensor) -> None:
        """Nothing is computed meanwhile."""

    def rest(self, *tensors: Tensor) -> Tensor:
        """All of it."""
        return self(*tensors)

    def bound(
        self, tensors: Sequence[Tensor], result: Tensor, alone: Callable[[], None], after: Callable[[], None]
    ) -> Callable[[], None]:
        """See `Boundary`."""
        return partial(self._copied, tensors, result)

    def _copied(self, tensors: Sequence[Tensor], result: Tensor) -> None:
        result.copy_(self(*tensors))


Result = TypeVar("Result")


def visible(function: Callable[..., Result], *tensors: Tensor) -> Result:
    """`function(*tensors)` of a `Kernel` or a `Boundary`, which a recorder notes as one operation."""
    if has_torch_function(tensors):
        seen: Callable[..., Any] = visible
        result: Result = handle_torch_function(seen, tensors, function, *tensors)
        return result
    return function(*tensors)


@dataclass(slots=True, kw_only=True)
class Operation:
    """One operation that was seen, with the tensors that it took and returned."""

    function: Any  # an operation of torch, a Kernel or a Boundary
    arguments: tuple[Any, ...]
    named: dict[str, Any] = field(default_factory=dict)
    results: list[Tensor]
    beside: list[Operation] = field(default_factory=list)  # of a boundary

    def taken(self) -> list[Tensor]:
        """The tensors among the arguments."""
        found: list[Tensor] = []
        mapped((self.arguments, self.named), found.append)
        return found


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """`value` with the tensors in it changed. Lists, tuples and dicts are gone through."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(each, change) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([mapped(each, change) for each in value])
    return value
