"""What a client knows of its cluster, with links that do what the test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.placement.node_states import HEARTBEAT, MISSED
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Failure, Install
from tests.unit.platforms.cluster.client.links import address
from tests.unit.platforms.cluster.client.members import Members


@pytest.fixture
def members() -> Iterator[Members]:
    with Members() as made:
        yield made


def test_nodes_that_have_joined_share_the_functions(members: Members) -> None:
    members.have("ab")
    members.install()
    assert sorted(members.hosts.values()) == [("a",), ("a",), ("b",), ("b",)]
    assert members.link("b").catalogue.functions().keys() == members.hosts.keys()


def test_a_node_that_is_added_is_told_all_and_may_host(members: Members) -> None:
    members.have("a")
    members.install()
    before = members.version
    members.have("ab")
    assert members.version > before
    assert members.link("b").started
    assert [node.name for node in members.view().nodes] == ["a", "b"]
    assert members.link("b").catalogue.functions().keys() == members.hosts.keys()


def test_a_node_that_is_gone_from_the_list_is_emptied_before_its_link_ends(members: Members) -> None:
    members.have("ab")
    members.install()
    gone = members.link("a")
    members.set_nodes([address("b")])
    assert members.states() == {"b": "ready", "a": "draining"}
    gone.beat()  # it does not know of it
    assert members.states()["a"] == "draining"
    assert members.used() == {"a", "b"}  # nobody has prewarmed its functions elsewhere yet
    assert not gone.retires
    members.route(dict.fromkeys(members.hosts, ("b",)))
    assert gone.retires
    gone.leave("it is no longer one of the nodes")
    assert members.states() == {"b": "ready"}
    members.have("ab")
    members.install(8)
    assert members.used() == {"a", "b"}


def test_a_node_that_is_gone_from_the_list_does_not_wait_for_ever(members: Members) -> None:
    members.have("ab")
    members.install()
    gone = members.link("a")
    members.set_nodes([address("b")])
    members.clock.now += 100.0
    members.ticked()
    assert gone.retires
    assert members.states() == {"b": "ready", "a": "drained"}
    assert members.used() == {"b"}


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


def test_a_lost_nodes_functions_are_called_elsewhere_at_once(members: Members) -> None:
    members.have("ab")
    members.install()
    members.link("a").leave("it was killed")
    assert members.used() == {"b"}
    assert members.causes() == "node a (127.0.0.1:97): it was killed"
    members.work()
    assert {entry.hosts for entry in members.link("b").catalogue.functions().values()} == {("b",)}
    before = members.hosts
    members.have("ab")
    assert members.hosts == before  # what moves back is planned elsewhere
    assert members.link("a").catalogue.entries == members.catalogue.entries


def test_a_silent_node_is_lost_and_what_an_old_epoch_says_is_dropped(members: Members) -> None:
    members.have("ab")
    link, epoch = members.link("a"), members.link("a").epoch
    for _ in range(MISSED + 1):
        members.clock.now += HEARTBEAT
        members.link("b").beat()
        members.ticked()
    assert members.states() == {"a": "lost", "b": "ready"}
    assert link.cause == "it does not answer heartbeats"
    link.epoch = epoch
    link.beat()
    assert not members.callable()[1:]


def test_the_end_of_a_connection_is_a_loss_unless_the_node_is_back(members: Members) -> None:
    members.have("a")
    link = members.link("a")
    epoch = link.epoch
    members.lose(link, epoch, "connection reset")
    assert members.states() == {"a": "lost"}
    link.join()
    members.work()
    members.lose(link, epoch, "connection reset")
    assert members.states() == {"a": "ready"}


def test_a_node_drains_by_its_own_word_and_may_come_back(members: Members) -> None:
    members.have("ab")
    members.install()
    members.link("a").beat(state="draining")
    assert members.states() == {"a": "draining", "b": "ready"}
    assert members.used() == {"a", "b"}
    assert [node.name for node in members.view().nodes] == ["b"]
    assert list(members.view().epochs) == ["a", "b"]
    members.link("a").beat()
    assert members.states() == {"a": "ready", "b": "ready"}
    members.drained(members.link("a"))
    assert members.used() == {"b"}
    assert [link.name for link in members.present()] == ["a", "b"]


def test_the_head_tells_nodes_of_new_hosts_and_other_clients_ask_nodes() -> None:
    with Members() as head, Members(head=False) as other:
        for members in (head, other):
            members.set_nodes([address("a"), address("b")])
            for name in "ab":
                members.link(name).join()
                members.link(name).catalogue = head.link(name).catalogue
            members.work()
        head.install()
        for stage in ("deployed", "moved", "of a lost node"):
            if stage == "moved":
                head.route({"f0": ("a", "b"), "f1": ("a",)})
            elif stage == "of a lost node":
                for members in (head, other):
                    members.link("b").leave()
                assert head.hosts == other.hosts, "nobody need tell"
            head.work()
            for name in "ab"[: 2 - (stage == "of a lost node")]:
                other.link(name).beat()
            other.work()
            assert other.hosts == head.hosts, stage
        assert other.catalogue.entries == head.catalogue.entries


def test_another_client_waits_for_the_head_to_tell_a_node(members: Members) -> None:
    members.have("a")
    members.install()
    with Members(head=False) as other:
        other.set_nodes([address("a"), address("b")])
        other.link("a").catalogue = members.link("a").catalogue
        for name in "ab":
            other.link(name).join()
            other.work()
        assert other.states() == {"a": "ready", "b": "joining"}
        other.link("b").catalogue.merge(members.catalogue.entries.values())
        other.link("b").beat()
        other.work()
        assert other.states() == {"a": "ready", "b": "ready"}


def test_a_node_that_refuses_what_others_have_taken_is_of_no_use(members: Members) -> None:
    members.have("ab")
    members.link("a").answers[Install] = Failure(kind="option", cause="/weights is missing")
    members.install(2)
    members.route({"f0": ("b", "a")})
    members.work()
    assert [members.state(link) for link in members.links] == ["refused", "ready"]
    assert "/weights is missing" in members.causes()
