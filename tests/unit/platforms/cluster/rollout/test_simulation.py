"""Joins, losses, drains and shifts of load in any order, in simulated time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faasmoe.platforms.cluster.placement.imbalance import imbalance
from faasmoe.platforms.cluster.placement.placement import Function, Node
from faasmoe.platforms.cluster.placement.plan import plan
from tests.unit.platforms.cluster.placement.placements import layers_of, nodes_of, suffices
from tests.unit.platforms.cluster.rollout.simulated_cluster import SimulatedCluster

PICK = st.integers(0, 1 << 16)


class Cluster(RuleBasedStateMachine):
    """Beside what `SimulatedCluster` checks."""

    def __init__(self) -> None:
        super().__init__()
        functions = [Function(f"f{i}", i % 3, 1 + i % 4, 1.0 + i % 5) for i in range(24)]
        self.cluster = SimulatedCluster(functions)
        self.joined = 0

    @rule(memory=st.integers(0, 60), speed=st.sampled_from([0.5, 1.0, 2.0]))
    def join(self, memory: int, speed: float) -> None:
        self.joined += 1
        self.cluster.join(Node(f"node{self.joined}", memory, speed))

    @precondition(lambda self: self.cluster.nodes)
    @rule(pick=PICK)
    def kill(self, pick: int) -> None:
        name = sorted(self.cluster.nodes)[pick % len(self.cluster.nodes)]
        self.cluster.kill(name)

    @precondition(lambda self: self.cluster.nodes)
    @rule(pick=PICK)
    def come_back(self, pick: int) -> None:
        """A connection ends, and the node is there again before anybody has looked."""
        name = sorted(self.cluster.nodes)[pick % len(self.cluster.nodes)]
        node = self.cluster.nodes[name]
        self.cluster.kill(name)
        self.cluster.join(node.node, node.running)

    @precondition(lambda self: self.cluster.nodes)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        name = sorted(self.cluster.nodes)[pick % len(self.cluster.nodes)]
        self.cluster.drain(name)

    @rule(seed=PICK)
    def shift(self, seed: int) -> None:
        random = Random(seed)
        self.cluster.set_loads({name: random.expovariate(1.0) for name in self.cluster.functions})

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.cluster.step()

    @rule()
    def settle(self) -> None:
        self.cluster.settle()
        hosting = self.cluster.states.hosting()
        functions = list(self.cluster.functions.values())
        if suffices(functions, hosting):
            for node in hosting:
                assert self.cluster.used(node.name) <= node.memory
            for name in self.cluster.nodes.keys() - {node.name for node in hosting}:
                assert self.cluster.drained(name)

    @invariant()
    def every_function_has_a_host_while_a_node_is_there(self) -> None:
        if self.cluster.states.hosting():
            assert self.cluster.routes.keys() == self.cluster.functions.keys()


Cluster.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
test_a_cluster_in_any_order_of_events = Cluster.TestCase


@pytest.mark.parametrize(("count", "events"), [(10, 12), (100, 6), (1000, 3)])
def test_a_cluster_with_losses_drains_joins_and_shifts(count: int, events: int) -> None:
    random, functions = Random(count), layers_of(8, 60, 0.7)
    cluster = SimulatedCluster(functions)
    spare = nodes_of(count + 2 * events, functions, room=4.0)
    for _ in range(count):
        cluster.join(spare.pop())
    cluster.settle()
    copies = cluster.prewarms
    for event in range(events):
        before, name = cluster.prewarms, random.choice(sorted(cluster.nodes))
        hosted = len(cluster.nodes[name].running)
        if event % 3 == 0:
            cluster.kill(name)
        elif event % 3 == 1:
            cluster.drain(name)
        cluster.join(spare.pop())
        cluster.settle()
        assert cluster.routes.keys() == cluster.functions.keys()
        assert event % 3 != 1 or cluster.drained(name)
        assert cluster.prewarms - before <= 2 * (hosted + copies / count) + 0.12 * copies + 4
        nodes = cluster.states.hosting()
        placed = cluster.controller.placement
        best = imbalance(functions, nodes, plan(functions, nodes))
        assert sum(imbalance(functions, nodes, placed)) <= sum(best) * 1.15
    assert len(cluster.nodes) >= count
