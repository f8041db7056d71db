"""An agent in this process: its connections are pairs of sockets, its platform answers at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faasmoe.platforms.base import FunctionSpec, PoolStatus
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.agent.agent import NodeAgent
from faasmoe.platforms.cluster.client.link import NodeLink, Watcher
from faasmoe.platforms.cluster.protocol.handshake import Credentials
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry
from faasmoe.platforms.local.options import LocalOptions
from tests.unit.platforms.cluster.ends import Echoes

SECRET = b"0123456789abcdef"
ADDRESS = NodeAddress("127.0.0.1", 1)


class FakePool(Echoes):
    """The embedded platform of the agent, or a client of it."""

    def __init__(self, options: LocalOptions | None = None, *, folder: Path | None = None) -> None:
        super().__init__()
        self.folder = folder or Path("/nowhere")
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
        self.states.append(link.cause)


class Dialled:
    """An agent, and how links reach it."""

    def __init__(self, agent: NodeAgent) -> None:
        self.agent = agent
        self.reachable = True
        self.ends: list[socket.socket] = []  # of links, in the order in which they have connected

    def dial(self, _: NodeAddress, __: float) -> socket.socket:
        if not self.reachable:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        self.agent._greet(theirs, ("a test", 0))
        self.ends.append(ours)
        return ours

    def link(self, watcher: Watcher, pool: str = "p", head: bool = True, secret: bytes = SECRET) -> NodeLink:
        return NodeLink(ADDRESS, Credentials(secret=secret, pool=pool, head=head), watcher, self.dial)


@contextmanager
def dialled() -> Iterator[Dialled]:
    listener, other = socket.socketpair()
    with TemporaryDirectory() as folder, other:
        node, server = authorities.identity(Path(folder)), authorities.server(Path(folder))
        with NodeAgent("a", listener, node, LocalOptions(), (), FakePool) as agent:  # type: ignore[arg-type]
            made = Dialled(agent, server)
            try:
                yield made
            finally:
                for end in made.ends:
                    end.close()
