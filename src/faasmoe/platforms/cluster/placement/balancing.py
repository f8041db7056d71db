"""Balancing: moves and exchanges that even out what nodes have to do."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from math import inf

from faasmoe.platforms.cluster.placement.imbalance import even, slowest
from faasmoe.platforms.cluster.placement.occupancy import Occupancy
from faasmoe.platforms.cluster.placement.policy import PlacementPolicy

_Found = tuple[int, int | None]  # a function of the node with more to do, and one that comes back for it

_TARGETS = 4  # nodes with the least to do that are tried for each one that has too much
_PASSES = 4  # over all layers
_FINE = 0.01  # share of the time over all layers that is not worth a move even if it costs nothing


def balance(occupancy: Occupancy, policy: PlacementPolicy) -> Occupancy:
    """Even out each layer, then the sum of all layers as far as no layer gets slower. Returns what has come of it.

    No two nodes of a layer differ then by more than `gain` of its time if it were even, unless no move and no exchange
    would help. Where copies are there already, only nodes that decide how long a layer lasts are relieved, and only if
    that pays. A copy moves once at most. Each step lowers the larger load of two nodes.
    """
    frugal = occupancy.anything_settled()
    for layer, loads in list(occupancy.by_layer.items()):
        before = slowest(occupancy, loads)
        if frugal and before <= (1 + policy.gain) * even(occupancy, loads):
            continue
        trial = occupancy.copy() if frugal else occupancy
        for _ in range(_PASSES):  # what one has changed may let the next one find more
            if not _Balancing(trial, layer, policy.gain, whole=False, frugal=frugal).run():
                break
        if _pays(policy, before, slowest(trial, trial.by_layer[layer]), trial.moved_share(layer)):
            occupancy = trial
    before, idle = slowest(occupancy, occupancy.total), _has_idle_node(occupancy)
    trial = occupancy.copy()
    for _ in range(_PASSES):
        changed = [_Balancing(trial, each, policy.gain, whole=True, frugal=frugal).run() for each in trial.layers]
        if not any(changed):
            break
    after, moved = slowest(trial, trial.total), trial.moved_share() - occupancy.moved_share()
    return trial if _pays(policy, before, after, moved) or (idle and after <= before) else occupancy


def _pays(policy: PlacementPolicy, before: float, after: float, moved: float) -> bool:
    """Whether time falls by enough for a share of bytes that moves."""
    fall = 1 - after / before if before else 0.0
    return moved <= 0 or fall >= max(policy.gain, policy.worth * moved)


def _has_idle_node(occupancy: Occupancy) -> bool:
    half = even(occupancy, occupancy.total) / 2
    return any(load / node.speed < half for load, node in zip(occupancy.total, occupancy.nodes, strict=True))


class _Balancing:
    """The functions of one layer, moved for the sake of this layer, or of the `whole`: the sum of all layers."""

    def __init__(self, occupancy: Occupancy, layer: int, tolerance: float, *, whole: bool, frugal: bool) -> None:
        self._occupancy, self._in_layer = occupancy, occupancy.by_layer[layer]
        self._speed = [node.speed for node in occupancy.nodes]
        self._loads = occupancy.total if whole else self._in_layer
        # beside the whole less than 1e-9 of it is lost in rounding
        least = (tolerance if frugal else _FINE) if whole else 1e-9
        self._tolerated = max(
            tolerance * even(occupancy, self._in_layer), least * even(occupancy, occupancy.total)
        )
        self._least_gain = self._tolerated / 4  # of one step; the loads of functions are not as we would like them
        self._layer_limit = slowest(occupancy, self._in_layer) if whole else inf
        self._frugal = frugal
        self._on: dict[int, list[int]] = {}  # functions of this layer by node
        for function in occupancy.layers[layer]:
            for node in occupancy.hosts[function]:
                self._on.setdefault(node, []).append(function)
        self._low = [(self._time(node), node) for node in range(len(occupancy.nodes))]
        self._high = [(-time, node) for time, node in self._low if node in self._on]
        heapq.heapify(self._low)
        heapq.heapify(self._high)

    def run(self) -> bool:
        """Whether anything was moved."""
        changed = False
        while self._high and self._tolerated > 0:
            negative, source = heapq.heappop(self._high)
            if -negative != self._time(source):
                continue  # an entry of before
            if self._relieve(source):
                changed = True
            elif self._frugal:
                break  # it decides how long the layer lasts, whatever else moves
        return changed

    def _relieve(self, source: int) -> bool:
        """Take something off a node."""
        aside, done = list[tuple[float, int]](), False
        while self._low and len(aside) < _TARGETS and not done:
            time, target = entry = heapq.heappop(self._low)
            if time != self._time(target):
                continue
            aside.append(entry)
            if self._time(source) - time <= self._tolerated:
                break
            done = self._pair(source, target)
        for time, node in aside:
            if time == self._time(node):
                heapq.heappush(self._low, (time, node))
        return done

    def _pair(self, source: int, target: int) -> bool:
        """Move a copy from one node to the other, or exchange two, if that lowers the larger load enough."""
        before = self._time(source)
        gap = before - self._time(target)
        speed, target_speed = self._speed[source], self._speed[target]
        ideal = gap / (1 / speed + 1 / target_speed)  # the load after whose move both have as much to do
        most = (gap - self._least_gain) * target_speed  # after whose move the target has as much as the source had
        most = min(most, self._layer_limit * target_speed - self._in_layer[target])
        least = self._least_gain * speed
        found = self._best_move(source, target, ideal, least, most)
        if found is None:
            found = self._best_exchange(source, target, ideal, least, most)
        if found is None:
            return False
        function, other = found
        steps = [(function, source, target)]
        if other is not None:
            # the first of the two needs room beside the second, unless that is not there yet
            place = 0 if self._occupancy.is_new(function, source) else 1
            steps.insert(place, (other, target, source))
        for moved, here, there in steps:
            self._occupancy.move(moved, here, there)
            self._on[here].remove(moved)
            self._on.setdefault(there, []).append(moved)
        for node in (source, target):
            time = self._time(node)
            heapq.heappush(self._low, (time, node))
            heapq.heappush(self._high, (-time, node))
        return True

    def _best_move(self, source: int, target: int, ideal: float, least: float, most: float) -> _Found | None:
        """The copy whose load is nearest to `ideal`, of those that come for nothing if there are any."""
        occupancy, best = self._occupancy, None
        for function in self._on.get(source, ()):
            share = occupancy.share[function]
            if least <= share <= most and occupancy.movable(function, source) and occupancy.fits(function, target):
                cached = occupancy.functions[function].name in occupancy.nodes[target].cached
                key = (not (cached or occupancy.is_new(function, source)), abs(share - ideal))
                if best is None or key < best[0]:
                    best = key, function
        return best and (best[1], None)

    def _best_exchange(self, source: int, target: int, ideal: float, least: float, most: float) -> _Found | None:
        """Two copies whose loads differ by what is nearest to `ideal`."""
        share, best = self._occupancy.share, None
        others = sorted(self._on.get(target, ()), key=share.__getitem__)
        shares = [share[other] for other in others]
        for function in self._on.get(source, ()) if others else ():
            middle = bisect_left(shares, share[function] - ideal)
            for other in others[max(0, middle - 2) : middle + 2]:
                difference = share[function] - share[other]
                off = abs(difference - ideal)
                if (
                    least <= difference <= most
                    and (best is None or off < best[0])
                    and self._exchangeable(function, source, other, target)
                ):
                    best = off, function, other
        return best and (best[1], best[2])

    def _exchangeable(self, function: int, source: int, other: int, target: int) -> bool:
        """Whether both may move, and there is room for either at the time."""
        occupancy = self._occupancy
        memory, others = occupancy.memory[function], occupancy.memory[other]
        either_is_new = occupancy.is_new(function, source) or occupancy.is_new(other, target)
        room = occupancy.free[target] + (others if either_is_new else 0)
        return (
            memory <= room
            and others <= occupancy.free[source] + memory
            and occupancy.movable(function, source)
            and occupancy.movable(other, target)
            and occupancy.may_come(function, target)
            and occupancy.may_come(other, source)
        )

    def _time(self, node: int) -> float:
        return self._loads[node] / self._speed[node]
