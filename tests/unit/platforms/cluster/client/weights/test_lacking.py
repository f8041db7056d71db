"""Whom to call while nodes lack weights."""

from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.client.weights.lacking import LackingWeights
from faasmoe.platforms.cluster.protocol.messages import Failure
from tests.unit.clocks import Clock

HOSTS = {"f": ("a", "b"), "g": ("a",)}
READY = ("a", "b", "c")


def lacks(error: str, *functions: str, cause: str = "") -> Failure:
    return Failure(kind="weights", cause=cause, function=functions[0], error=error, lacking=functions)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lacking(clock: Clock) -> LackingWeights:
    return LackingWeights(clock)


def test_another_host_is_called_first_and_then_any_node(lacking: LackingWeights) -> None:
    assert lacking.routed(HOSTS, READY) == HOSTS
    lacking.note("a", lacks("under way", "f", "g"))
    assert lacking.routed(HOSTS, READY) == {"f": ("b",), "g": ("b",)}
    lacking.note("b", lacks("elsewhere", "g"))
    assert lacking.routed(HOSTS, READY) == {"f": ("b",), "g": ("c",)}
    lacking.note("c", lacks("elsewhere", "g"))
    assert lacking.routed(HOSTS, READY) == {"f": ("b",), "g": ()}
    assert lacking.routed(HOSTS, ("a",)) == {"f": (), "g": ()}


@pytest.mark.parametrize(("error", "seconds"), [("under way", 0.25), ("elsewhere", 2.0), ("failed", 10.0)])
def test_a_node_is_asked_again_after_a_while(
    lacking: LackingWeights, clock: Clock, error: str, seconds: float
) -> None:
    assert not lacking.due
    lacking.note("a", lacks(error, "g"))
    assert lacking.due
    assert lacking.routed(HOSTS, ("a",))["g"] == ()
    assert not lacking.due
    clock.now += seconds - 0.01
    assert not lacking.due
    clock.now += 0.02
    assert lacking.due
    assert lacking.routed(HOSTS, ("a",)) == HOSTS | {"f": ("a", "b")}
    assert not lacking.due


def test_a_node_that_is_no_host_gets_the_weights_if_all_hosts_have_failed(lacking: LackingWeights) -> None:
    lacking.note("a", lacks("failed", "f"))
    lacking.note("b", lacks("under way", "f"))
    lacking.note("c", lacks("elsewhere", "f"))
    assert lacking.substitute("f", ("a", "b"), READY) is None
    lacking.note("b", lacks("failed", "f"))
    assert lacking.substitute("f", ("a", "b"), READY) == "c"
    lacking.asked("c", "f")
    assert lacking.substitute("f", ("a", "b"), READY) is None
    assert lacking.hopeless("f", READY) is None


def test_it_is_hopeless_if_every_node_has_failed(lacking: LackingWeights) -> None:
    failure = lacks("failed", "g", cause="the disk is full")
    lacking.note("a", failure)
    assert lacking.hopeless("g", ("a", "b")) is None
    lacking.note("b", lacks("failed", "g"))
    assert lacking.hopeless("g", ("a", "b")) == ("a", failure)
    assert lacking.hopeless("g", READY) is None
    assert lacking.hopeless("f", READY) is None
