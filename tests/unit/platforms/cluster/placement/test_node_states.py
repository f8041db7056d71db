from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT, MISSED, NodeState, NodeStates
from faasmoe.platforms.cluster.placement.placement import Node

NODE = Node("a", 100)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ticks(states: NodeStates, clock: Clock, count: int) -> list[str]:
    lost = []
    for _ in range(count):
        clock.now += HEARTBEAT
        lost += states.tick()
    return lost


def test_a_node_joins_and_hosts_once_it_is_ready() -> None:
    states = NodeStates(Clock(), first_epoch=7)
    epoch = states.join(NODE)
    assert epoch == 7
    assert states.members["a"].state is NodeState.JOINING
    assert states.hosting() == []
    assert states.ready("a", epoch)
    assert states.hosting() == [NODE]
    assert states.ready("a", epoch)
    assert not states.ready("b", epoch)


def test_a_silent_node_is_lost_after_its_heartbeats() -> None:
    clock = Clock()
    states = NodeStates(clock)
    epoch = states.join(NODE)
    states.ready("a", epoch)
    assert ticks(states, clock, MISSED) == []
    assert states.heard("a", epoch)
    assert ticks(states, clock, MISSED) == []
    assert ticks(states, clock, 1) == ["a"]
    assert ticks(states, clock, 10) == []
    assert states.members["a"].state is NodeState.LOST
    assert not states.heard("a", epoch)
    assert not states.ready("a", epoch)
    assert not states.lose("a", epoch)


def test_a_node_that_says_nothing_after_joining_is_lost() -> None:
    clock = Clock()
    states = NodeStates(clock)
    states.join(NODE)
    assert ticks(states, clock, MISSED + 1) == ["a"]


def test_a_watcher_that_was_frozen_declares_no_node_lost() -> None:
    clock = Clock()
    states = NodeStates(clock)
    states.join(NODE)
    clock.now += 3600.0
    assert states.tick() == []
    for _ in range(100):  # and one that looks too often does not count faster
        clock.now += HEARTBEAT / 100
        assert states.tick() == []


def test_what_an_earlier_epoch_says_is_dropped() -> None:
    states = NodeStates(Clock())
    old = states.join(NODE)
    new = states.join(NODE)
    assert new > old
    assert not states.heard("a", old)
    assert not states.ready("a", old)
    assert not states.lose("a", old)
    assert states.members["a"].state is NodeState.JOINING
    assert states.lose("a", new)


def test_a_draining_node_is_called_but_hosts_nothing_new() -> None:
    states = NodeStates(Clock())
    epoch = states.join(NODE)
    states.ready("a", epoch)
    assert states.turn("a", NodeState.DRAINING)
    assert not states.turn("a", NodeState.DRAINING)
    assert states.ready("a", epoch)
    assert (states.hosting(), states.callable()) == ([], {"a": epoch})  # it stays so
    assert states.turn("a", NodeState.READY)
    assert states.hosting() == [NODE]
    assert states.turn("a", NodeState.DRAINED)
    assert (states.hosting(), states.callable()) == ([], {})
    states.forget("a")
    with pytest.raises(KeyError):
        states.turn("a", NodeState.READY)


def test_only_nodes_that_are_there_drain() -> None:
    states = NodeStates(Clock())
    epoch = states.join(NODE)
    assert not states.turn("a", NodeState.DRAINING)
    assert states.members["a"].state is NodeState.JOINING
    states.lose("a", epoch)
    assert not states.turn("a", NodeState.DRAINING)
    assert states.members["a"].state is NodeState.LOST


def test_nodes_are_in_the_order_of_their_names() -> None:
    states = NodeStates(Clock())
    for name in "cab":
        states.ready(name, states.join(Node(name, 1)))
    assert [node.name for node in states.hosting()] == list(states.callable()) == ["a", "b", "c"]
