"""A server that takes nodes in, over pairs of sockets."""

from __future__ import annotations

import socket
import threading
from datetime import timedelta
from pathlib import Path

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.members import MemberBook
from faasmoe.platforms.cluster.authority.tokens import JoinToken, TokenBook
from faasmoe.platforms.cluster.joining.enrolment import Enrolment
from faasmoe.platforms.cluster.joining.join_listener import JoinListener
from faasmoe.platforms.cluster.joining.join_messages import NodeOffer
from tests import authorities

ADDRESS = NodeAddress("10.0.0.9", 7001)


class JoinServer:
    """Serves whoever connects, while `up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = ClusterFolder(folder)
        authorities.server(folder)
        self.authority = Authority(folder)
        self.tokens, self.members = TokenBook(folder), MemberBook(folder)
        self.up = True
        self.asked: list[NodeAddress] = []
        self.threads: list[threading.Thread] = []

    def connect(self, address: tuple[str, int], _: float) -> socket.socket:
        """As `socket.create_connection`."""
        self.asked.append(NodeAddress(*address))
        if not self.up:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = socket.socketpair()
        listener = JoinListener(theirs, self.authority, self.folder.server, self.tokens, self.members)
        self.threads.append(threading.Thread(target=listener.serve, args=(theirs, "10.0.0.2")))
        self.threads[-1].start()
        return ours

    def finish(self) -> None:
        """Wait until everybody was served."""
        for thread in self.threads:
            thread.join(10)

    def token(self, node: str = "") -> JoinToken:
        return JoinToken(*self.tokens.create(timedelta(hours=1), self.authority.pin, node).split(".")[1:])

    def enrolment(self, folder: Path, name: str = "a", port: int = 7000) -> Enrolment:
        """That of a node whose machine has its own cluster folder."""
        identity = ClusterFolder(folder).node(name)
        return Enrolment(name, identity, ADDRESS, NodeOffer("10.0.0.2", port, 1 << 30))
