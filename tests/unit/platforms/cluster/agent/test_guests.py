"""Whom a node serves, over connections that are never used."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.platforms.cluster.agent.claim import GRACE
from faasmoe.platforms.cluster.agent.guest import Guest
from faasmoe.platforms.cluster.agent.guests import Guests
from faasmoe.platforms.cluster.authority.identity import Role, utc_now
from faasmoe.platforms.cluster.authority.revocations import Revocation, RevocationBook
from faasmoe.platforms.cluster.protocol.connection import Connection
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.messages import Hello, Lane, Traffic
from faasmoe.platforms.cluster.protocol.tls import Peer
from faasmoe.platforms.local.protocol.wire import Lost
from tests import authorities
from tests.unit.clocks import Clock


@pytest.fixture
def revoked(tmp_path: Path) -> RevocationBook:
    return RevocationBook(tmp_path)


def guest(
    pool: str,
    lane: Lane = "beat",
    head: bool = True,
    peer: Peer = Peer("server", "server", b""),  # noqa: B008 (it is immutable)
) -> Guest:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        return Guest(Connection(ours, 100), peer, Hello(lane=lane, pool=pool, head=head))


def is_cut(guest: Guest) -> bool:
    try:
        guest.check_there()
    except Lost:
        return True
    return False


def test_guests_of_a_pool_that_loses_the_node_are_cut_from_their_admission_on(revoked: RevocationBook) -> None:
    guests = Guests(revoked)
    head, client, looker = guest("p"), guest("p", "orders", head=False), guest("", "orders", head=False)
    assert not any(map(guests.admit, (head, client, looker)))
    guests.leaves(head)
    assert guests.admit(guest("q"))
    assert (is_cut(client), is_cut(looker)) == (True, False)
    with pytest.raises(LinkRefused, match="not with pool p"):
        guests.admit(guest("p", "orders", head=False))


def test_guests_of_a_pool_whose_head_stays_away_are_cut(revoked: RevocationBook) -> None:
    clock = Clock()
    guests = Guests(revoked, clock)
    head, client = guest("p"), guest("p", "calls", head=False)
    guests.admit(head)
    guests.admit(client)
    guests.leaves(head)
    assert (guests.pool, guests.headed, guests.expired(), is_cut(client)) == ("p", False, False, False)
    clock.now += GRACE
    assert guests.expired()
    assert (guests.pool, is_cut(client)) == ("", True)
    assert not guests.expired()


def test_calls_count_while_a_guest_is_there_and_when_it_is_gone(revoked: RevocationBook) -> None:
    guests = Guests(revoked)
    caller, batches = guest("p", "beat"), SimpleNamespace(traffic=Traffic(2), work={"f": 1.5}, running=True)
    other: Any = SimpleNamespace(traffic=Traffic(1), work={"f": 1.0}, running=False)
    guests.admit(caller)
    with guests.calling(caller, other):
        assert (guests.traffic, guests.work, guests.running) == (Traffic(1), {"f": 1.0}, False)
        with guests.calling(guest("p"), batches):  # type: ignore[arg-type]
            assert (guests.traffic, guests.work, guests.running) == (Traffic(3), {"f": 2.5}, True)
    guests.leaves(caller)
    assert (guests.traffic, guests.work, guests.running) == (Traffic(3), {"f": 2.5}, False)


def test_who_has_shown_a_certificate_that_is_revoked_is_cut_and_not_admitted_again(
    revoked: RevocationBook, tmp_path: Path
) -> None:
    guests = Guests(revoked)
    guests.admit(guest("p"))
    shown = authorities.identity(tmp_path, Role.ORCHESTRATOR, "z").certificate()
    its, others = Peer("orchestrator", "z", shown), Peer("orchestrator", "y", shown)
    server = guest("p", "orders", peer=Peer("server", "z", shown))  # a node may have any name
    there = [guest("p", "calls", head=False, peer=peer) for peer in (its, others)]
    assert not any(map(guests.admit, (server, *there)))
    guests.revoke([Revocation("z", (utc_now() + timedelta(minutes=1)).timestamp())])
    assert [is_cut(each) for each in (server, *there)] == [False, True, False]
    with pytest.raises(LinkRefused, match="certificates of node z were revoked"):
        guests.admit(guest("p", "calls", head=False, peer=its))
