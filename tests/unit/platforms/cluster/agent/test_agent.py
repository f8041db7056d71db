"""An agent without processes and listener."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.cluster.agent import agent, claim
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.authority.members import Member, MemberBook
from faasmoe.platforms.cluster.authority.revocations import Revocation
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.call_batch import BatchCall, CallBatch
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.frame import FrameKind, LinkRefused, Outgoing, framed
from faasmoe.platforms.cluster.protocol.messages import (
    AskCatalogue,
    AskNode,
    Beat,
    CatalogueReport,
    DrainNode,
    Failure,
    Finished,
    Install,
    NodeReport,
)
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities
from tests.unit.platforms.cluster.agents import ADDRESS, Dialled, Told, dialled
from tests.waiting import wait_until


@pytest.fixture
def there() -> Iterator[Dialled]:
    with dialled() as made:
        yield made


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def link(there: Dialled, told: Told) -> Iterator[NodeLink]:
    """Of the head."""
    made = there.link(told)
    made.start()
    assert wait_until(lambda: told.states)
    yield made
    made.close()


def call(link: NodeLink, function: str, work: float) -> bytes:
    """One call in a batch of its own. Returns its reply, or the kind of failure."""
    connection = link.take()
    batch = CallBatch(5.0, [BatchCall(function, 2, 100, work)])
    connection.push(Outgoing(framed(FrameKind.BATCH, messages.encode(batch), [b"hi"])), time.monotonic() + 5)
    frame = connection.frame(time.monotonic() + 5)
    if frame.kind == FrameKind.MESSAGE:
        answer = messages.read_answered(frame.head)
        assert isinstance(answer, Failure)
        link.give_back(connection)
        return answer.kind.encode()
    call_batch.read_replies(frame.head, frame.body, 1)
    room = bytearray(frame.body)
    connection.fill([memoryview(room)], time.monotonic() + 5)
    link.give_back(connection)
    return bytes(room)


def test_work_is_counted_by_function_whoever_calls_and_also_when_it_has_gone(
    there: Dialled, link: NodeLink
) -> None:
    other = there.link(Told(), head=False)
    assert call(link, "f", 2.5) == call(other, "f", 1.0) == b"hi"
    call(other, "g", 3.0)
    other.close()
    for spare in other._spare:
        spare.close()

    def counted() -> bool:
        report = link.ask(AskNode(), NodeReport, 5.0)
        assert isinstance(report, NodeReport)
        assert (report.traffic.calls, report.traffic.busy_seconds) == (3, 1.5)
        assert report.traffic.busy_gb_seconds == pytest.approx(1.5 * 7 / 1e9)
        return report.work == {"f": 3.5, "g": 3.0}

    assert counted()
    assert wait_until(lambda: len(there.agent._guests._calling()) == 1)
    assert counted()


def test_heartbeats_tell_what_clients_have_to_know(there: Dialled, link: NodeLink, told: Told) -> None:
    link.ask(Install((there.entry("f", 4, "a"),)), Finished, 5.0)
    call(link, "f", 1.0)
    assert wait_until(lambda: (told.last.stamp, told.last.traffic.calls) == (4, 1))
    for wanted, state in ((True, "draining"), (False, "ready")):
        assert link.ask(DrainNode(wanted), Finished, 5.0) == Finished()
        assert wait_until(lambda state=state: told.states[-1] == state)
        assert call(link, "f", 1.0) == b"hi"


def test_a_node_that_is_to_end_is_called_until_its_functions_have_moved(
    there: Dialled, link: NodeLink, told: Told
) -> None:
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    ending = threading.Thread(target=there.agent.drain, args=(60.0,))
    ending.start()
    assert wait_until(lambda: told.states[-1] == "draining")
    assert call(link, "f", 1.0) == b"hi"
    assert ending.is_alive()
    link.ask(Install((there.entry("f", 2, "b"),)), Finished, 5.0)
    ending.join(10)
    assert not ending.is_alive()
    assert call(link, "f", 1.0) == b"draining"
    assert wait_until(lambda: told.states[-1] == "drained")


def test_a_node_that_is_to_end_does_not_wait_for_ever(there: Dialled, link: NodeLink) -> None:
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    there.agent.drain(0.2)
    assert call(link, "f", 1.0) == b"draining"


def test_a_node_without_a_server_ends_at_once(there: Dialled, link: NodeLink) -> None:
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    link.close()
    assert wait_until(lambda: not there.agent._guests.headed)
    began = time.monotonic()
    there.agent.drain(60.0)
    assert time.monotonic() - began < 10


def test_another_head_is_refused_and_takes_over_when_the_first_has_gone(there: Dialled, link: NodeLink) -> None:
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    told = Told()
    other = there.link(told, pool="q")
    other.start()
    assert wait_until(lambda: told.states)
    assert told.states[0] == "another server has the node: that of pool p"
    link.close()
    assert wait_until(lambda: told.joins)
    assert other.ask(AskCatalogue(0), CatalogueReport, 5.0) == CatalogueReport(())
    assert there.agent._platform.deployed == []
    other.close()


class Unwilling:
    """A fault of the platform: it removes nothing until it is mended."""

    def __init__(self, there: Dialled) -> None:
        self.pool: Any = there.agent._platform
        self.tries = 0
        self._remove = self.pool.remove
        self.pool.remove = self._refuse

    def _refuse(self, _: object) -> None:
        self.tries += 1
        raise PlatformError("local", "(all)", "the daemon is gone")

    def mend(self) -> None:
        self.pool.remove = self._remove


def test_what_an_expired_pool_leaves_is_removed_when_that_can_be_done_and_others_may_connect(
    there: Dialled, link: NodeLink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_TICK", 0.01)
    monkeypatch.setattr(claim, "GRACE", 0.0)
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    fault = Unwilling(there)
    there.agent._acceptor.start()
    link.close()
    assert wait_until(lambda: fault.tries > 2)
    assert caplog.text.count("functions that have left it are not stopped yet") == 1
    assert "the daemon is gone" in caplog.text
    assert there.agent._acceptor.is_alive()
    fault.mend()
    assert wait_until(lambda: fault.pool.deployed == [])
    told = Told()
    other = there.link(told, pool="q")
    other.start()
    assert wait_until(lambda: told.joins)
    other.close()


def test_a_head_that_cannot_be_served_leaves_the_node_to_others(there: Dialled, link: NodeLink) -> None:
    link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0)
    fault = Unwilling(there)
    link.close()
    assert wait_until(lambda: not there.agent._guests.headed)
    told = Told()
    other = there.link(told, pool="q")
    other.start()
    assert wait_until(lambda: fault.tries and not there.agent._guests.headed)
    fault.mend()
    assert wait_until(lambda: told.joins)
    other.close()
    assert wait_until(lambda: not there.agent._guests.headed)


def test_a_guest_of_a_pool_that_has_lost_the_node_is_cut_whatever_it_does(there: Dialled, link: NodeLink) -> None:
    client = there.link(Told(), head=False)
    orders, calls = client.open("orders"), client.open("calls")
    link.close()
    assert wait_until(lambda: not there.agent._guests.headed)
    told = Told()
    other = there.link(told, pool="q")
    other.start()
    assert wait_until(lambda: told.joins)
    for connection in (orders, calls):
        with pytest.raises(Lost):
            connection.answered(time.monotonic() + 5)
        client.drop(connection)
    other.close()
    client.close()


def test_who_is_of_no_pool_may_only_look(there: Dialled, link: NodeLink) -> None:
    stranger = there.link(Told(), pool="", head=False)
    assert isinstance(stranger.ask(AskNode(), NodeReport, 5.0), NodeReport)
    with pytest.raises(Lost):
        stranger.ask(DrainNode(True), Finished, 5.0)
    with pytest.raises(Lost, match="lane calls needs a pool"):
        stranger.take()
    stranger.close()


def test_an_agent_runs_what_the_server_has_signed_and_nothing_else(there: Dialled, link: NodeLink) -> None:
    node = there.agent._identity
    for false in (
        there.entry("f", 1, "a", signer=node),
        msgspec.structs.replace(there.entry("f", 1, "a"), content=FunctionContent(b"B:")),
        msgspec.structs.replace(there.entry("f", 1, "a"), content=None),
    ):
        answer = link.ask(Install((there.entry("g", 1, "a"), false)), Finished, 5.0)
        assert isinstance(answer, Failure)
        assert answer.cause.startswith("function f: ")
        assert there.agent._platform.deployed == []
    assert link.ask(Install((there.entry("f", 1, "a"),)), Finished, 5.0) == Finished()
    assert there.agent._platform.deployed == ["f"]


def test_an_agent_is_told_which_certificates_are_revoked(there: Dialled, link: NodeLink, tmp_path: Path) -> None:
    told, members = Told(), MemberBook(tmp_path)
    members.join("z", Member(fingerprint="its", host="10.0.0.1", port=1), replace=False)
    orchestrator = authorities.identity(there.server.folder.parent, Role.ORCHESTRATOR, "z")
    caller = there.link(Told(), head=False, server=orchestrator)
    calls = caller.open("calls")
    server = there.link(told, head=False, members=members)
    server.start()
    assert wait_until(lambda: told.joins)
    members.revoke("z")
    with pytest.raises(Lost, match="closed by the other side"):
        calls.answered(time.monotonic() + 5)
    with pytest.raises(LinkRefused, match="certificates of node z were revoked"):
        caller.open("calls")
    caller.drop(calls)
    caller.close()
    server.close()


def test_orchestrators_revoke_nothing(there: Dialled, link: NodeLink) -> None:
    orchestrator = authorities.identity(there.server.folder.parent, Role.ORCHESTRATOR, "z")
    caller = there.link(Told(), head=False, server=orchestrator)
    beats = caller.open("beat")
    beats.send(Beat((Revocation("y", 1e10),)), time.monotonic() + 5)
    with pytest.raises(Lost, match="closed by the other side"):
        beats.answered(time.monotonic() + 5)
    assert there.agent._guests._revoked._until == {}
    caller.drop(beats)
    caller.close()


def test_connections_of_strangers_are_bounded(there: Dialled, link: NodeLink, told: Told) -> None:
    strangers = [there.dial(ADDRESS, 1.0) for _ in range(64)]
    with there.dial(ADDRESS, 1.0) as refused:
        assert refused.recv(1) == b""
    beats = len(told.states)
    assert wait_until(lambda: len(told.states) > beats + 1)  # who is there already goes on
    for each in strangers:
        each.close()
