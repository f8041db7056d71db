"""Which nodes are used, and how many Ray is asked for."""

from __future__ import annotations

import pytest

from faasmoe.platforms.ray.driver.scaling import PATIENCE, Scaling
from faasmoe.platforms.ray.messages import AgentLoad, ScalingLimits
from tests.unit.clocks import Clock

IDLE = AgentLoad(calls=7)
GIB = 1 << 30


@pytest.fixture
def clock() -> Clock:
    return Clock()


def scaling(clock: Clock, *, min_nodes: int = 1, max_nodes: int = 0) -> Scaling:
    return Scaling(ScalingLimits(min_nodes=min_nodes, max_nodes=max_nodes, idle_seconds=100.0), clock)


def waiting(count: int, instances: int = 4, memory: int = 4 * GIB) -> AgentLoad:
    return AgentLoad(calls=7, instances=instances, waiting=count, memory_used=memory)


def present(*nodes: str) -> dict[str, bool]:
    return dict.fromkeys(nodes, True)


def test_every_node_is_used_up_to_the_limit(clock: Clock) -> None:
    assert scaling(clock).used(present("b", "a")) == ["a", "b"]
    assert scaling(clock, max_nodes=1).used({"a": False, "b": True}) == ["b"]  # it has an agent already


@pytest.mark.parametrize(("min_nodes", "wanted"), [(0, 1), (1, 1), (3, 3)])
def test_ray_is_asked_for_a_node_to_start_with(clock: Clock, min_nodes: int, wanted: int) -> None:
    assert scaling(clock, min_nodes=min_nodes).wanted(0) == wanted


def test_ray_is_asked_to_keep_what_is_used(clock: Clock) -> None:
    assert scaling(clock).wanted(5) == 5


def test_activations_that_wait_for_long_ask_for_the_nodes_that_they_fill(clock: Clock) -> None:
    it = scaling(clock)
    loads = {"a": waiting(6), "b": waiting(3)}
    it.observe(loads, 4 * GIB, woken=False)
    assert it.wanted(2) == 2
    clock.now += PATIENCE
    it.observe(loads, 4 * GIB, woken=False)
    assert it.wanted(2) == 2 + 3  # nine more instances of 1 GiB on nodes of 4 GiB


def test_waits_that_pass_ask_for_nothing(clock: Clock) -> None:
    it = scaling(clock)
    for load in (waiting(1), IDLE, waiting(1)):
        it.observe({"a": load}, GIB, woken=False)
        clock.now += PATIENCE - 1
    assert it.wanted(1) == 1


def test_the_limit_holds_for_what_ray_is_asked(clock: Clock) -> None:
    it = scaling(clock, max_nodes=2)
    for _ in range(2):
        it.observe({"a": waiting(50)}, GIB, woken=False)
        clock.now += PATIENCE
    assert it.wanted(1) == 2


def idle_for_long(it: Scaling, clock: Clock, loads: dict[str, AgentLoad]) -> None:
    it.observe(loads, GIB, woken=False)
    clock.now += 100
    it.observe(loads, GIB, woken=False)


@pytest.mark.parametrize(("min_nodes", "left"), [(0, 0), (1, 1), (2, 2)])
def test_idle_nodes_are_released_but_for_the_least(clock: Clock, min_nodes: int, left: int) -> None:
    it = scaling(clock, min_nodes=min_nodes)
    idle_for_long(it, clock, {"a": IDLE, "b": IDLE})
    used = it.used(present("a", "b"))
    assert len(used) == left
    assert it.wanted(len(used)) == left


@pytest.mark.parametrize("busy", [AgentLoad(instances=1), AgentLoad(waiting=1)])
def test_a_node_with_instances_or_waiting_calls_is_not_idle(clock: Clock, busy: AgentLoad) -> None:
    it = scaling(clock, min_nodes=0)
    idle_for_long(it, clock, {"a": busy, "b": IDLE})
    assert "a" in it.used(present("a", "b"))


def test_a_node_that_was_called_is_not_idle(clock: Clock) -> None:
    it = scaling(clock, min_nodes=0)
    for calls in range(5):
        it.observe({"a": AgentLoad(calls=calls)}, GIB, woken=False)
        clock.now += 60
    assert it.used(present("a")) == ["a"]


def test_a_call_without_a_node_brings_back_as_many_as_there_were(clock: Clock) -> None:
    it = scaling(clock, min_nodes=0)
    idle_for_long(it, clock, {"a": IDLE, "b": IDLE})
    assert it.used(present("a", "b")) == []
    it.observe({}, 0, woken=False)
    assert it.wanted(0) == 0
    it.observe({}, 0, woken=True)
    assert it.used(present("a", "b")) == ["a", "b"]  # Ray has not taken them yet
    assert it.wanted(0) == 2  # if it has


def test_released_nodes_come_before_new_ones(clock: Clock) -> None:
    it = scaling(clock)
    idle_for_long(it, clock, {"a": IDLE, "b": IDLE})
    (left,) = it.used(present("a", "b"))
    for _ in range(2):
        it.observe({left: waiting(1)}, GIB, woken=False)
        clock.now += PATIENCE
    assert it.used(present("a", "b")) == ["a", "b"]
    assert it.wanted(2) == 2


def test_a_node_that_ray_has_taken_and_brings_again_is_used(clock: Clock) -> None:
    it = scaling(clock, min_nodes=0)
    idle_for_long(it, clock, {"a": IDLE})
    assert it.used({}) == []
    assert it.used(present("a")) == ["a"]


def test_what_ray_cannot_bring_is_not_asked_for_ever(clock: Clock) -> None:
    it = scaling(clock)
    for _ in range(2):
        it.observe({"a": waiting(5)}, GIB, woken=False)
        clock.now += PATIENCE
    assert it.wanted(1) > 1
    clock.now += 100
    it.observe({"a": IDLE}, GIB, woken=False)
    assert it.wanted(1) == 1
