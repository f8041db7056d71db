"""Functions that move between nodes, with links that do what the test says, and time that passes when it says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faasmoe.platforms.cluster.client.orders import ClusterOrders
from faasmoe.platforms.cluster.client.rebalancer import SHIFT_SECONDS, SURVEY_SECONDS, Rebalancer
from faasmoe.platforms.cluster.protocol.messages import AskNode, Failure, PrewarmFunctions
from tests.unit.platforms.cluster.client.links import FakeLink, address
from tests.unit.platforms.cluster.client.members import Members

MEMORY = 100 << 20


class Balanced:
    """A membership with the head's rebalancer."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.rebalancer = Rebalancer(members, ClusterOrders(members, lambda _: b""), clock=members.clock)

    def settle(self, turns: int = 20) -> None:
        """Time passes until all is done. No function is without a host meanwhile, and none is called cold."""
        members = self.members
        for _ in range(turns):
            before = members.hosts
            self.rebalancer.turn(0.01)
            for name, hosts in members.hosts.items():
                assert hosts
                for node in set(hosts) - set(before[name]):
                    assert name in members.link(node).instances or not self.has_instance(name), f"{name} is cold"
            members.work()
            members.clock.now += 1.0

    def has_instance(self, name: str) -> bool:
        return any(name in link.instances for link in self.members.links)

    def call(self, seconds: float, **work: float) -> None:
        """Each function is called on its first host, and starts there if need be. Work is in readings a second."""
        for _ in range(int(seconds / SURVEY_SECONDS)):
            for name, hosts in self.members.hosts.items():
                link = self.members.link(hosts[0])
                link.instances.add(name)
                link.work[name] = link.work.get(name, 0.0) + work.get(name, 1.0) * SURVEY_SECONDS
            self.members.clock.now += SURVEY_SECONDS
            self.rebalancer.turn(0.0)

    def hosted(self, node: str) -> set[str]:
        return {name for name, hosts in self.members.hosts.items() if node in hosts}


@pytest.fixture
def balanced() -> Iterator[Balanced]:
    with Members() as members:
        members.have("ab")
        members.install(8, MEMORY)
        made = Balanced(members)
        yield made
        made.rebalancer.close()


def prewarmed(link: FakeLink) -> set[str]:
    return {name for order in link.done(PrewarmFunctions) for name in order.names}


def test_nothing_moves_by_itself(balanced: Balanced) -> None:
    before = balanced.members.hosts
    balanced.settle()
    balanced.call(2 * SHIFT_SECONDS)
    balanced.settle()
    assert balanced.members.hosts == before
    assert balanced.rebalancer.settled


def test_a_hot_function_has_two_hosts_and_a_cold_one_has_one(balanced: Balanced) -> None:
    balanced.settle()
    (first,) = balanced.members.hosts["f0"]
    other = {"a": "b", "b": "a"}[first]
    balanced.call(4 * SHIFT_SECONDS, f0=40.0)
    balanced.settle()
    assert sorted(balanced.members.hosts["f0"]) == ["a", "b"]
    assert "f0" in prewarmed(balanced.members.link(other))
    assert all(len(hosts) == 1 for name, hosts in balanced.members.hosts.items() if name != "f0")
    for link in balanced.members.links:
        assert sorted(link.catalogue.entries["f0"].hosts) == ["a", "b"], "nodes tell other clients"
    balanced.call(40 * SHIFT_SECONDS)
    balanced.settle()
    assert len(balanced.members.hosts["f0"]) == 1
    assert sum("f0" in link.instances for link in balanced.members.links) == 1


def test_a_node_that_joins_takes_over_what_is_prewarmed_there(balanced: Balanced) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    balanced.members.have("abc")
    balanced.settle()
    assert 2 <= len(balanced.hosted("c")) <= 3
    assert balanced.hosted("c") == balanced.members.link("c").instances
    assert prewarmed(balanced.members.link("c")) == balanced.hosted("c")
    assert not prewarmed(balanced.members.link("a")) | prewarmed(balanced.members.link("b"))


def test_what_has_no_instance_moves_without_one(balanced: Balanced) -> None:
    balanced.settle()
    balanced.members.have("abc")
    balanced.settle()
    assert balanced.hosted("c")
    assert not balanced.members.link("c").done(PrewarmFunctions)


def test_a_node_that_drains_is_emptied(balanced: Balanced) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    balanced.members.link("a").beat(state="draining")
    balanced.settle()
    assert balanced.hosted("a") == balanced.members.link("a").instances == set()
    assert len(balanced.members.link("b").instances) == 8
    balanced.members.link("a").beat()
    balanced.settle()
    assert len(balanced.hosted("a")) == 4


def test_a_node_that_is_taken_off_the_list_is_emptied_and_let_go(balanced: Balanced) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    gone = balanced.members.link("a")
    balanced.members.set_nodes([address("b")])
    assert not gone.retires
    for _ in range(20):
        balanced.rebalancer.turn(0.01)
        balanced.members.work()
    assert gone.retires
    assert gone.instances == set()
    assert balanced.hosted("b") == balanced.members.link("b").instances == set(balanced.members.hosts)


def test_functions_of_a_lost_node_start_elsewhere_side_by_side(balanced: Balanced) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    lost = balanced.hosted("a")
    balanced.members.link("a").leave("it was killed")
    assert balanced.hosted("b") == set(balanced.members.hosts)
    for _ in range(5):
        balanced.rebalancer.turn(0.01)
    assert prewarmed(balanced.members.link("b")) == lost


def test_a_node_that_cannot_take_a_function_leaves_it_where_it_was(
    balanced: Balanced, caplog: pytest.LogCaptureFixture
) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    link = balanced.members.link("b")
    link.answers[PrewarmFunctions] = Failure(kind="platform", cause="no memory is left", function="f")
    balanced.members.link("a").beat(state="draining")
    balanced.settle()
    assert len(balanced.hosted("a")) == 4
    assert "node b has refused an order for function" in caplog.text
    assert "no memory is left" in caplog.text
    link.answers.clear()
    balanced.call(2 * SHIFT_SECONDS)
    balanced.settle()
    assert balanced.hosted("a") == set()


def test_a_node_that_cannot_tell_what_it_runs_holds_up_no_drain(balanced: Balanced) -> None:
    balanced.settle()
    balanced.call(SURVEY_SECONDS)
    balanced.members.link("b").answers[AskNode] = Failure(
        kind="platform", cause="the daemon is down", function="f"
    )
    balanced.members.link("a").beat(state="draining")
    balanced.settle()
    assert balanced.hosted("a") == set()


def test_budgets_hold_while_functions_are_hot(balanced: Balanced) -> None:
    for name in "ab":
        balanced.members.link(name).leave()
    balanced.members.set_nodes([])
    balanced.members.set_nodes([address(name) for name in "cd"])
    for name in "cd":
        balanced.members.link(name).join(memory_budget=4 * (MEMORY + (6 << 20)))
    balanced.members.work()
    balanced.settle()
    balanced.call(4 * SHIFT_SECONDS, f0=40.0, f1=40.0)
    balanced.settle()
    assert [len(balanced.hosted(name)) for name in "cd"] == [4, 4]
