"""A link to an agent in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    CatalogueReport,
    Finished,
    Install,
    NodeReport,
    PrewarmFunctions,
)
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities
from tests.unit.platforms.cluster.agents import Dialled, Told, dialled
from tests.waiting import wait_until


@pytest.fixture
def there() -> Iterator[Dialled]:
    with dialled() as made:
        yield made


def test_a_link_learns_what_the_node_is_and_sends_heartbeats(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: len(told.states) > 1)
    assert (link.name, link.incarnation, told.joins) == ("a", there.agent.incarnation, 1)
    assert set(told.states) == {"ready"}
    assert 0 < link.round_trip < 1
    assert link.cores > 0
    link.close()
    link.close()
    assert told.states[-1] == "the link was closed"


def test_orders_are_answered_side_by_side(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins)
    assert link.ask(Install((there.entry("f", 3, "a"),)), Finished, 5.0) == Finished()
    answers = [link.send(order, 5.0) for order in (AskNode(), PrewarmFunctions(("f",)))]
    report = answers[0](NodeReport)
    assert isinstance(report, NodeReport)
    assert report.pool.memory_used == 7
    assert answers[1](Finished) == Finished()
    assert wait_until(lambda: told.last.stamp == 3)
    link.close()


def test_the_end_of_a_connection_is_a_loss_and_the_link_connects_again(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins == 1)
    there.ends[0].shutdown(2)
    assert wait_until(lambda: told.joins == 2)
    assert any("ended" in state or "closed" in state for state in told.states)
    link.cut("a caller has seen its end")
    assert wait_until(lambda: told.joins == 3)
    assert "a caller has seen its end" in told.states
    link.close()


def test_a_node_whose_certificate_is_revoked_is_let_go(there: Dialled, tmp_path: Path) -> None:
    told, members = Told(), MemberBook(tmp_path)
    link = there.link(told, members=members)
    link.start()
    assert wait_until(lambda: told.joins == 1)
    members.join("a", Member(fingerprint="another", host="10.0.0.1", port=1), replace=False)
    members.revoke("a")
    assert wait_until(lambda: "its certificate was revoked" in link.cause)
    assert link.refused
    with pytest.raises(LinkRefused, match="its certificate was revoked"):
        link.take()
    link.close()
    assert told.joins == 1


def test_a_node_that_cannot_be_reached_is_tried_again(there: Dialled) -> None:
    told = Told()
    there.reachable = False
    link = there.link(told)
    link.start()
    assert wait_until(lambda: len(told.states) > 1)
    assert told.states[0] == "it cannot be reached: Connection refused"
    assert not link.refused
    there.reachable = True
    assert wait_until(lambda: told.joins)
    link.close()


def test_what_a_node_refuses_is_its_cause(there: Dialled, tmp_path: Path) -> None:
    told = Told()
    link = there.link(told, server=authorities.server(tmp_path))
    link.start()
    assert wait_until(lambda: told.states)
    assert link.cause.startswith("it belongs to another cluster")
    assert link.refused
    link.close()


def test_a_node_that_adds_to_the_catalogue_is_refused(there: Dialled) -> None:
    """By its own key, as a node would that somebody has taken over."""
    link = there.link(Told())
    link.start()
    assert wait_until(lambda: link.epoch)
    true, false = there.entry("f", 3, "a"), there.entry("g", 4, "a", signer=there.agent._identity)
    there.agent._orders.answer(Install((true,)))
    assert link.ask(AskCatalogue(0), CatalogueReport, 5.0) == CatalogueReport((true,))
    there.agent._orders.answer(Install((false,)))
    with pytest.raises(LinkRefused, match="its catalogue is false: function g: the server has not signed it"):
        link.ask(AskCatalogue(0), CatalogueReport, 5.0)
    link.close()


def test_a_lost_node_that_retires_is_left_for_good(there: Dialled) -> None:
    told = Told()
    there.reachable = False
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.states)
    link.retire(60.0)
    assert wait_until(lambda: not link._thread.is_alive())
    assert told.retired


def test_orders_to_a_node_that_is_gone_are_lost(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins)
    there.reachable = False
    with pytest.raises(Lost, match="cannot be reached"):
        link.ask(AskNode(), NodeReport, 5.0)
    link.close()


def test_a_link_that_retires_waits_for_what_is_under_way(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins)
    batch = link.take()
    link.retire(60.0)
    beats = len(told.states)
    assert wait_until(lambda: len(told.states) > beats + 1)
    assert link.retires
    link.give_back(batch)
    assert wait_until(lambda: told.states[-1] == "it is no longer one of the nodes")
    link.close()


def test_a_link_that_retires_does_not_wait_for_ever(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins)
    batch = link.take()
    began = time.monotonic()
    link.retire(0.0)
    assert wait_until(lambda: told.states[-1] == "it is no longer one of the nodes")
    assert time.monotonic() - began < 10
    link.drop(batch)
    link.close()


def test_a_link_that_retires_does_not_wait_for_what_is_open_all_the_time(there: Dialled) -> None:
    told = Told()
    link = there.link(told)
    link.start()
    assert wait_until(lambda: told.joins)
    weights = link.open("weights")
    link.retire(60.0)
    assert wait_until(lambda: told.states[-1] == "it is no longer one of the nodes")
    with pytest.raises(Lost):
        weights.answered(time.monotonic() + 10)
    link.drop(weights)
    link.close()
