from __future__ import annotations

from collections.abc import Callable

import pytest

from faasmoe.evaluation.meters.budget import SHARE, MeterBudget
from faasmoe.evaluation.meters.memory import Memory
from faasmoe.evaluation.meters.meter import integral
from faasmoe.evaluation.meters.processes import Footprint, Seen
from tests.unit.evaluation.meters.played import Clocks, PlayedSystem

MB = 1_000_000


def steady(nbytes: int) -> Callable[[float], int]:
    return lambda _: nbytes


def measured(system: PlayedSystem, seconds: float, share: float) -> tuple[list[float], list[int]]:
    """Times and bytes, ten times a second."""
    clocks, memory = system.clocks, Memory(system.footprint, system.clocks.now, system.clocks.used)
    budget = MeterBudget(share, 0.1, clocks.now, clocks.used)
    times: list[float] = []
    values: list[int] = []
    memory.look(system.members())
    clocks.cpu = 0.0
    budget = MeterBudget(share, 0.1, clocks.now, clocks.used)
    while clocks.wall < seconds:
        clocks.wall += 0.1
        times.append(clocks.wall)
        values.append(memory.look(system.members(), budget)["all"])
    return times, values


def test_everybody_is_looked_at_once_without_a_budget() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {1: steady(10), 2: steady(20)})
    memory = Memory(system.footprint, clocks.now, clocks.used)
    assert memory.look(system.members()) == {"all": 30}
    assert sorted(system.walked) == [1, 2]
    assert memory.look(system.members()) == {"all": 30}
    assert memory.walks == 4


def test_walks_keep_to_the_budget_however_long_they_take() -> None:
    for cost in (0.0005, 0.005, 0.05):
        system = PlayedSystem(Clocks(), {pid: steady(50 * MB) for pid in range(1, 41)}, cost=cost)
        measured(system, 60.0, SHARE)
        assert system.clocks.cpu <= SHARE * 60 + 1e-6
        assert system.clocks.cpu > 0.8 * SHARE * 60


def test_growth_is_seen_at_once_and_without_a_walk() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {1: lambda now: 10 * MB if now < 1 else 90 * MB, 2: steady(5 * MB)})
    memory = Memory(system.footprint, clocks.now, clocks.used)
    memory.look(system.members())
    system.walked.clear()
    nothing = MeterBudget(0.0, 0.0, clocks.now, clocks.used)
    clocks.wall = 1.0
    assert memory.look(system.members(), nothing) == {"all": 95 * MB}
    assert system.walked == []


def test_who_has_changed_comes_first_but_nobody_is_forgotten() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {pid: steady(10 * MB) for pid in (1, 2)}, cost=0.001)
    system.own[3] = lambda now: int(10 * MB * (1 + now))
    memory = Memory(system.footprint, clocks.now, clocks.used)
    memory.look(system.members())
    system.walked.clear()
    budget = MeterBudget(0.0101, 0.1, clocks.now, clocks.used)  # one walk in a tenth of a second
    for _ in range(40):
        clocks.wall += 0.1
        memory.look(system.members(), budget)
    assert system.walked[0] == 3
    assert system.walked.count(3) > 20
    assert {1, 2} <= set(system.walked)


def test_a_new_process_counts_as_its_like_until_there_is_time_to_look_at_it() -> None:
    clocks = Clocks()
    system = PlayedSystem(
        clocks, {1: steady(99 * MB), 2: steady(10 * MB), 3: lambda now: 7 * MB if now >= 1 else 0}
    )
    memory = Memory(system.footprint, clocks.now, clocks.used)
    memory.look(system.members())
    nothing, budget = (MeterBudget(share, 1.0, clocks.now, clocks.used) for share in (0.0, SHARE))
    clocks.wall = 1.0
    assert memory.look(system.members(), nothing) == {"all": 119 * MB}
    assert memory.look(system.members(), budget) == {"all": 116 * MB}
    clocks.wall = 0.5  # it has ended
    assert memory.look(system.members(), nothing) == {"all": 109 * MB}


def test_the_first_process_of_a_kind_is_looked_at_whatever_it_takes() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {1: steady(10 * MB), 2: lambda now: 7 * MB if now >= 1 else 0}, shared=50 * MB)
    memory = Memory(system.footprint, clocks.now, clocks.used)
    nothing = MeterBudget(0.0, 0.0, clocks.now, clocks.used)
    assert memory.look(system.members(), nothing) == {"all": 60 * MB}
    clocks.wall = 1.0
    # the second, and what was the first one's own
    assert memory.look(system.members(), nothing) == {"all": 92 * MB}
    assert system.walked == [1, 2]


def test_a_process_that_ends_before_it_is_looked_at_stands_for_nothing() -> None:
    memory = Memory(lambda pid: Footprint(0, 0, 0))
    assert memory.look({"all": [Seen(pid=1, parent=0, started=1, cpu=0.0, reaped=0.0, rss=50 * MB)]}) == {"all": 0}


def test_who_has_ended_and_is_not_waited_for_shares_nothing() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {1: steady(10 * MB), 2: steady(MB)}, shared=80 * MB)
    memory = Memory(system.footprint, clocks.now, clocks.used)
    ended = Seen(pid=9, parent=1, started=9, cpu=0.0, reaped=0.0, rss=0)
    for _ in range(2):
        assert memory.look({"all": [*system.members()["all"], ended]}) == {"all": 91 * MB}
    assert 9 not in system.walked


def test_what_was_a_processs_own_is_shared_when_it_has_forked() -> None:
    clocks = Clocks()
    system = PlayedSystem(clocks, {1: steady(10 * MB), 2: lambda now: MB if now >= 1 else 0}, shared=80 * MB)
    memory = Memory(system.footprint, clocks.now, clocks.used)
    budget = MeterBudget(SHARE, 1.0, clocks.now, clocks.used)
    assert memory.look(system.members()) == {"all": 90 * MB}
    clocks.wall = 1.0
    assert memory.look(system.members(), budget) == {"all": 91 * MB}
    assert system.walked == [1, 1, 2]


def test_more_relatives_make_less_of_what_is_shared_without_a_walk() -> None:
    clocks = Clocks()
    later: dict[int, Callable[[float], int]] = {pid: lambda now: MB if now >= 1 else 0 for pid in (3, 4)}
    system = PlayedSystem(clocks, {1: steady(10 * MB), 2: steady(MB), **later}, shared=80 * MB)
    memory = Memory(system.footprint, clocks.now, clocks.used)
    assert memory.look(system.members()) == {"all": 91 * MB}
    system.walked.clear()
    two_walks = MeterBudget(0.0021, 1.0, clocks.now, clocks.used)
    clocks.wall = 1.0
    assert memory.look(system.members(), two_walks)["all"] == pytest.approx(93 * MB, abs=10)
    assert system.walked == [3, 4]  # not 1 and 2, which stand for 20 MB less each all the same


@pytest.mark.parametrize("cost", [0.001, 0.003])
def test_bursts_are_measured_as_if_everybody_had_been_looked_at(cost: float) -> None:
    """Processes come and go in bursts, share memory with each other, and have memory that goes up and down."""

    def burst(number: int) -> Callable[[float], int]:
        begun, ends = 3.0 * (number // 10), 3.0 * (number // 10) + 0.5 + 0.2 * (number % 10)
        return lambda now: int((8 + number % 7 * min(1.0, now - begun)) * MB) if begun <= now < ends else 0

    def system() -> PlayedSystem:
        spikes: Callable[[float], int] = lambda now: (300 if int(5 * now) % 7 else 390) * MB  # noqa: E731
        return PlayedSystem(
            Clocks(), {1: spikes, **{n + 2: burst(n) for n in range(100)}}, shared=80 * MB, cost=cost
        )

    times, found = measured(system(), 30.0, SHARE)
    dense = system()
    _, true = measured(dense, 30.0, 1000.0)
    assert integral(times, found) == pytest.approx(integral(times, true), rel=0.03)
    assert max(found) == pytest.approx(max(true), rel=0.05)
