"""What is placed, where it may go, and where it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from faasmoe.errors import OptionError

UNLIMITED = 1 << 62  # bytes, of a node without a memory budget


@dataclass(frozen=True, slots=True)
class Function:
    """A function to be placed. Raises `OptionError` for values below zero."""

    name: str
    layer: int  # functions of one layer are called together
    memory: int  # bytes of a node's budget that one copy takes
    load: float  # activated bytes a second, or in any unit that all functions share (`LoadMeter`)

    def __post_init__(self) -> None:
        if self.memory < 0 or not 0 <= self.load < float("inf"):
            raise OptionError(
                f"function {self.name}: memory is {self.memory} and load {self.load}; they must be 0 or more"
            )


@dataclass(frozen=True, slots=True)
class Node:
    """A machine that can host functions. Raises `OptionError` for a budget below zero or a speed of zero."""

    name: str
    memory: int  # bytes of its budget, which hosted functions never exceed
    speed: float = 1.0  # activated bytes a second, compared with the other nodes: its cores or its bandwidth
    cached: frozenset[str] = frozenset()  # functions whose weights it has, so that they move there for nothing
    refuses: frozenset[str] = frozenset()  # functions that could not be prewarmed there

    def __post_init__(self) -> None:
        if self.memory < 0:
            raise OptionError(f"node {self.name}: a memory budget of {self.memory} bytes; it must be 0 or more")
        if not 0 < self.speed < float("inf"):
            raise OptionError(f"node {self.name}: a speed of {self.speed}; it must be more than 0")


@dataclass(frozen=True, slots=True)
class Move:
    """One step from a placement to the next: a copy comes to `target`, then the one on `source` goes.

    Without `source` it is a further copy; without `target` a copy goes that nothing replaces.
    """

    function: str
    target: str | None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """The hosts of each function, by name, and the moves that lead there from the placement before.

    Made one after the other, no move needs more memory on its target than is free there. `unplaced` are functions that
    fit on no node that may host: their hosts, if they have any, are nodes that they should leave.
    """

    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    moves: tuple[Move, ...] = ()
    unplaced: tuple[str, ...] = ()

    def functions_of(self, node: str) -> list[str]:
        """Names of the functions that a node hosts."""
        return [function for function, hosts in self.hosts.items() if node in hosts]

    def memory_of(self, functions: Iterable[Function]) -> dict[str, int]:
        """Bytes that each hosting node needs for these functions."""
        used: dict[str, int] = {}
        for function in functions:
            for node in self.hosts.get(function.name, ()):
                used[node] = used.get(node, 0) + function.memory
        return used
