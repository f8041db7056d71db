"""Moves that are not finished: prewarm on the new node, switch the routes, stop on the old one."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from faasmoe.platforms.cluster.placement.placement import Move, Placement
from faasmoe.platforms.cluster.rollout.copies import Copies, CopyState

PREWARMS = 2  # copies that a node loads side by side: one reads while the other is fetched


class Moves:
    """The moves of a placement that are not finished, and what may be done for them now.

    A copy stops only while another one is ready, so that a function is never without a host for the sake of a move. A
    node's moves begin in the order of the plan. That order has room for each (`Placement`), so there is always one that
    can go on: that which comes first in the plan. Where there is room for all at once, the order does not matter, and
    functions that have no other host come first.
    """

    def __init__(self, placement: Placement) -> None:
        self._waiting: dict[str, deque[Move]] = {}  # by target
        self._begun: list[Move] = []  # those whose copy is not ready, or whose source has to stop
        self._alone = {function for function, hosts in placement.hosts.items() if len(hosts) == 1}
        for move in placement.moves:
            if move.target is None:
                self._begun.append(move)
            else:
                self._waiting.setdefault(move.target, deque()).append(move)

    @property
    def finished(self) -> bool:
        """Whether all moves have been made."""
        return not self._begun and not any(self._waiting.values())

    def prewarms(self, copies: Copies, budgets: Mapping[str, int]) -> list[tuple[str, str]]:
        """Functions and nodes on which they are to be prewarmed from now on. They are `WARMING` from here."""
        started = []
        for node, waiting in self._waiting.items():
            if sum(copies.memory[move.function] for move in waiting) <= budgets.get(node, 0) - copies.used(node):
                moves = sorted(waiting, key=self._has_host)
                waiting.clear()
                waiting.extend(moves)
            while waiting:
                move, state = waiting[0], copies.state(waiting[0].function, node)
                if state is CopyState.STOPPING:
                    break
                if state is None:
                    if node not in budgets or copies.warming(node) >= PREWARMS:
                        break
                    if copies.memory[move.function] > budgets[node] - copies.used(node):
                        break
                    copies.put(move.function, node, CopyState.WARMING)
                    started.append((move.function, node))
                self._begun.append(waiting.popleft())
        return started

    def _has_host(self, move: Move) -> bool:
        return move.source is not None or move.function not in self._alone

    def stops(self, copies: Copies, routed: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
        """Functions and nodes on which they are to stop from now on. They are `STOPPING` from here.

        `routed` has the ready hosts of each function.
        """
        stopped, unfinished = list[tuple[str, str]](), []
        gone: dict[str, int] = {}  # of those that are routed
        for move in self._begun:
            ready = routed.get(move.function, ())
            source, state = move.source, move.source and copies.state(move.function, move.source)
            if move.target is not None and move.target not in ready:
                unfinished.append(move)
            elif source is None or state in (None, CopyState.STOPPING):
                continue
            elif len(ready) - gone.get(move.function, 0) - (source in ready) < 1:
                unfinished.append(move)
            else:
                gone[move.function] = gone.get(move.function, 0) + (source in ready)
                copies.put(move.function, source, CopyState.STOPPING)
                stopped.append((move.function, source))
        self._begun = unfinished
        return stopped
