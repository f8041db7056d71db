"""A link to a node that answers orders over a pair of sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.agent.guest import meet
from faasmoe.platforms.cluster.authority.signing import signer
from faasmoe.platforms.cluster.client import link as links
from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.protocol.frame import LinkRefused
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import AskCatalogue, CatalogueEntry, CatalogueReport, Welcome
from faasmoe.platforms.cluster.signed_entries import PURPOSE, signed
from tests import authorities
from tests.unit.platforms.cluster.client.links import address

ENTRY = CatalogueEntry("f", 3, FunctionSpec("f", "m:a", Path("/a")), "digest", ("a",))


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[CatalogueEntry], CatalogueReport]:
    """Ask a node whose catalogue has this entry."""
    node, server = authorities.identity(tmp_path), authorities.server(tmp_path)

    def serve(sock: socket.socket, entry: CatalogueEntry) -> None:
        guest = meet(sock, node, "a", "10.0.0.1")
        assert guest is not None
        soon = time.monotonic() + 10
        guest.connection.send(Welcome(incarnation="i", cores=1, memory_budget=None), soon)
        assert guest.connection.asked(soon) == AskCatalogue(0)
        guest.connection.send(CatalogueReport((entry,)), soon)
        guest.connection.close()

    def asked(entry: CatalogueEntry) -> CatalogueReport:
        ours, theirs = socket.socketpair()

        def connect(where: tuple[str, int], _: float) -> socket.socket:
            assert NodeAddress(*where) == address("a")
            return ours

        monkeypatch.setattr(socket, "create_connection", connect)
        monkeypatch.setattr(links, "prepare", lambda _: None)
        link = NodeLink(address("a"), Credentials(identity=server), watcher=None)
        with ThreadPoolExecutor(1) as other:
            serving = other.submit(serve, theirs, entry)
            try:
                report = link.ask(AskCatalogue(0), CatalogueReport, 10)
                assert isinstance(report, CatalogueReport)
                return report
            finally:
                serving.result(10)
                link.cut("the test is over")

    return asked


def test_a_catalogue_that_the_server_has_signed_is_believed(
    ask: Callable[[CatalogueEntry], CatalogueReport], tmp_path: Path
) -> None:
    (entry,) = signed([ENTRY], signer(authorities.server(tmp_path).key(), PURPOSE))
    assert ask(entry).entries == (entry,)


def test_a_node_that_adds_to_the_catalogue_is_refused(
    ask: Callable[[CatalogueEntry], CatalogueReport], tmp_path: Path
) -> None:
    """By its own key, as a node would that somebody has taken over."""
    (entry,) = signed([ENTRY], signer(authorities.identity(tmp_path).key(), PURPOSE))
    with pytest.raises(LinkRefused, match="its catalogue is false: function f: the server has not signed it"):
        ask(entry)
