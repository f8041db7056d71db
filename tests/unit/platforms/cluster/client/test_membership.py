"""What a client knows of its cluster, with links that do what the test says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import Finished, Install
from tests.unit.platforms.cluster.client.links import FakeLink, address
from tests.waiting import wait_until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Members(Membership):
    """A membership of fake links."""

    def __init__(self, head: bool = True) -> None:
        self.clock = Clock()
        super().__init__("nodes", Credentials(secret=b"", pool="p", head=head), FakeLink, self.clock)

    def link(self, name: str) -> FakeLink:
        """The newest link to a node's address."""
        return next(link for link in self.links if link.address == address(name) and not link.retires)

    def states(self) -> dict[str, str]:
        return {link.name: self.state(link) for link in self.links}

    def install(self, count: int = 4) -> None:
        specs = [FunctionSpec(f"f{i}", "m:a", Path("/a"), memory=10) for i in range(count)]
        entries = self.enter(lambda catalogue: catalogue.deployed([(spec, "") for spec in specs]))
        for link in self.ready():
            link.ask(Install(tuple(entries)), Finished, 1.0)

    def have(self, names: str) -> None:
        """These nodes alone, all of them ready."""
        self.set_nodes([address(name) for name in names])
        for name in names:
            if not self.link(name).epoch:
                self.link(name).join()
        assert wait_until(lambda: all(self.states().get(name) == "ready" for name in names))

    def used(self) -> set[str]:
        return {node for hosts in self.hosts.values() for node in hosts}


@pytest.fixture
def members() -> Iterator[Members]:
    with Members() as made:
        yield made


def test_nodes_that_have_joined_share_the_functions(members: Members) -> None:
    members.have("ab")
    members.install()
    assert sorted(members.hosts.values()) == [("a",), ("a",), ("b",), ("b",)]
    assert members.link("b").catalogue.functions().keys() == members.hosts.keys()


def test_a_node_that_is_added_gets_functions(members: Members) -> None:
    members.have("a")
    members.install()
    before = members.version
    members.have("ab")
    assert members.used() == {"a", "b"}
    assert members.version > before
    assert members.link("b").started
    assert wait_until(lambda: members.link("b").catalogue.functions().keys() == members.hosts.keys())


def test_a_node_that_is_gone_gets_no_more_calls_and_its_link_ends_later(members: Members) -> None:
    members.have("ab")
    members.install()
    gone = members.link("a")
    members.set_nodes([address("b")])
    assert members.used() == {"b"}
    assert gone.retires
    assert members.states() == {"b": "ready", "a": "draining"}
    gone.leave("it is no longer one of the nodes")
    assert members.states() == {"b": "ready"}
    members.have("ab")
    assert members.used() == {"a", "b"}


def test_a_node_that_comes_back_at_once_waits_for_its_old_link_to_end(members: Members) -> None:
    members.have("a")
    old = members.link("a")
    members.set_nodes([])
    members.set_nodes([address("a")])
    new = members.link("a")
    assert new is not old
    with pytest.raises(LinkRefused, match="another node is called a"):
        new.join()
    new.leave("another node is called a, too", refused=True)
    old.leave()
    members.have("a")
    assert members.states() == {"a": "ready"}


def test_links_that_never_joined_just_end(members: Members) -> None:
    members.set_nodes([address("a"), address("b")])
    link = members.link("a")
    members.set_nodes([address("b")])
    link.leave()
    assert [each.address for each in members.links] == [address("b")]


def test_links_are_in_the_order_of_the_list(members: Members) -> None:
    members.have("ab")
    members.have("cba")
    assert [link.name for link in members.links] == ["c", "b", "a"]


def test_a_closed_membership_takes_no_nodes() -> None:
    with Members() as members:
        pass
    members.set_nodes([address("a")])
    assert members.links == ()


def test_settling_names_the_nodes_that_cannot_be_used(members: Members) -> None:
    members.set_nodes([address("a"), address("b")])
    members.link("a").leave("it cannot be reached")
    members.link("b").leave("it is with another pool", refused=True)
    with pytest.raises(PlatformError, match=r"node at 127.0.0.1:98: it is with another pool"):
        members.settle(0.0)
