"""Joins, losses, drains and shifts of load in any order, in simulated time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from faasmoe.platforms.cluster.placement.imbalance import imbalance
from faasmoe.platforms.cluster.placement.node_states import NodeState
from faasmoe.platforms.cluster.placement.placement import Function, Node
from faasmoe.platforms.cluster.placement.plan import plan
from tests.unit.platforms.cluster.placement.placements import layers_of, nodes_of, suffices
from tests.unit.platforms.cluster.placement.simulated_cluster import SimulatedCluster

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
        self.cluster.gaps.clear()

    @precondition(lambda self: self.cluster.nodes)
    @rule(pick=PICK)
    def come_back(self, pick: int) -> None:
        """A connection ends, and the node is there again before anybody has looked."""
        name = sorted(self.cluster.nodes)[pick % len(self.cluster.nodes)]
        node = self.cluster.nodes[name]
        self.cluster.kill(name)
        self.cluster.join(node.node, node.ready)
        self.cluster.gaps.clear()

    @precondition(lambda self: self.cluster.nodes)
    @rule(pick=PICK)
    def drain(self, pick: int) -> None:
        name = sorted(self.cluster.nodes)[pick % len(self.cluster.nodes)]
        self.cluster.controller.drain(name, 1e6)

    @rule(seed=PICK)
    def shift(self, seed: int) -> None:
        random = Random(seed)
        self.cluster.controller.set_loads({name: random.expovariate(1.0) for name in self.cluster.functions})

    @rule(count=st.integers(1, 6))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.cluster.step()

    @rule()
    def settle(self) -> None:
        self.cluster.settle()
        hosting = self.cluster.controller.states.hosting()
        functions = list(self.cluster.functions.values())
        if suffices(functions, hosting):
            assert self.cluster.routes.keys() == self.cluster.functions.keys()
            draining = [
                s for s in self.cluster.controller.states.members.values() if s.state is NodeState.DRAINING
            ]
            assert draining == []

    @invariant()
    def nothing_is_without_a_host_but_by_a_loss(self) -> None:
        assert self.cluster.gaps == set()


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
        hosted = len(cluster.nodes[name].ready)
        if event % 3 == 0:
            cluster.kill(name)
        elif event % 3 == 1:
            cluster.controller.drain(name, 1e6)
        cluster.join(spare.pop())
        cluster.settle()
        assert cluster.routes.keys() == cluster.functions.keys()
        assert event % 3 != 1 or name in cluster.drained
        assert cluster.prewarms - before <= 2 * (hosted + copies / count) + 4
        nodes = cluster.controller.states.hosting()
        placed = cluster.controller.placement
        best = imbalance(functions, nodes, plan(functions, nodes))
        assert sum(imbalance(functions, nodes, placed)) <= sum(best) * 1.15
    assert len(cluster.nodes) >= count
