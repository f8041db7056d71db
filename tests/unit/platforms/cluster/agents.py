"""An agent in this process: its connections are pairs of sockets, its platform answers at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from faasmoe.platforms.base import FunctionSpec, PoolStatus
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.agent.agent import NodeAgent
from faasmoe.platforms.cluster.authority import signing
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.authority.members import MemberBook
from faasmoe.platforms.cluster.client.link import NodeLink, Watcher
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry
from faasmoe.platforms.cluster.signed_entries import PURPOSE, signed
from faasmoe.platforms.cluster.weights.options import WeightsOptions
from faasmoe.platforms.local.options import LocalOptions
from tests import authorities
from tests.unit.platforms.cluster.ends import Echoes

ADDRESS = NodeAddress("127.0.0.1", 1)
ARTIFACT = Path(__file__)  # any file


class FakePool(Echoes):
    """The embedded platform of the agent, or a client of it."""

    home = Path("/nowhere")  # of those that nobody has told their folder

    def __init__(self, options: LocalOptions | None = None, *, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder or self.home
        self.deployed: list[str] = []
        self.stopped: list[str] = []

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        self.deployed += [spec.name for spec in specs]

    def remove(self, names: Sequence[str]) -> None:
        self.deployed = [name for name in self.deployed if name not in names]

    def stop(self, names: Sequence[str]) -> None:
        self.stopped += names

    def prewarm(self, names: Sequence[str]) -> None:
        pass

    def status(self) -> PoolStatus:
        return PoolStatus(functions=[], memory_used=7)

    def close(self) -> None:
        pass

    def __enter__(self) -> FakePool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Told:
    """Who follows a link, and notes what it is told."""

    def __init__(self) -> None:
        self.states: list[str] = []  # of the heartbeats, or why the link was left
        self.joins = 0
        self.retired = False  # when the link was left last

    def joined(self, link: NodeLink) -> None:
        link.epoch = 1
        self.joins += 1

    def heard(self, link: NodeLink, reply: Any) -> None:
        self.states.append(reply.state)
        self.last = reply

    def ticked(self) -> None:
        pass

    def left(self, link: NodeLink) -> None:
        link.epoch = 0
        self.retired = link.retires
        self.states.append(link.cause)


class Dialled:
    """An agent, and how links reach it."""

    def __init__(self, agent: NodeAgent, server: ClusterIdentity) -> None:
        self.agent = agent
        self.server = server
        self.reachable = True
        self.ends: list[socket.socket] = []  # of links, in the order in which they have connected

    def dial(self, _: NodeAddress, __: float) -> socket.socket:
        if not self.reachable:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        self.agent._greet(theirs, ("a test", 0))
        self.ends.append(ours.dup())
        return ours

    def link(
        self,
        watcher: Watcher,
        pool: str = "p",
        head: bool = True,
        server: ClusterIdentity | None = None,
        members: MemberBook | None = None,
    ) -> NodeLink:
        """`server`: another one than that of the agent's cluster."""
        credentials = Credentials(identity=server or self.server, pool=pool, head=head, members=members)
        return NodeLink(ADDRESS, credentials, watcher, self.dial)

    def entry(self, name: str, stamp: int, *hosts: str, signer: ClusterIdentity | None = None) -> CatalogueEntry:
        """Of a function, signed by the server unless by somebody else."""
        made = CatalogueEntry(name, stamp, FunctionSpec(name, "m:a", ARTIFACT), FunctionContent(b""), hosts)
        return signed([made], signing.signer((signer or self.server).key(), PURPOSE))[0]


@contextmanager
def dialled() -> Iterator[Dialled]:
    listener, other = socket.socketpair()
    with TemporaryDirectory() as folder, other:
        node, server = authorities.identity(Path(folder)), authorities.server(Path(folder))
        kind: Any = type("Pool", (FakePool,), {"home": Path(folder)})
        with NodeAgent("a", listener, node, LocalOptions(), (), WeightsOptions(), kind) as agent:
            made = Dialled(agent, server)
            try:
                yield made
            finally:
                for end in made.ends:
                    end.close()
