"""The discovery of the platform `nodes`: those that a file lists, and those that have joined."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import NodeAddress, read_address, read_nodes
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.cluster.authority.members import MemberBook
from faasmoe.platforms.cluster.authority.tokens import TokenBook
from faasmoe.platforms.cluster.client.discovery import FileDiscovery
from faasmoe.platforms.cluster.protocol.connection import address_of, bound
from faasmoe.platforms.nodes.options import NodesOptions
from faasmoe.util.closeable import Closeable

log = logging.getLogger(__name__)

_TICK = 0.1  # seconds between looks for the first node


class NodeDiscovery(Closeable):
    """See `Discovery`. Nodes may join from now on, and the server's certificate is renewed, until `close`."""

    def __init__(self, options: NodesOptions, folder: ClusterFolder) -> None:
        """Makes the cluster's authority if there is none. Raises `OptionError`."""
        options.check()
        self._stack = ExitStack()
        self._file = FileDiscovery(Path(options.nodes_file).absolute(), read_nodes) if options.nodes_file else None
        self._members = MemberBook(folder.path)
        self._joined: list[NodeAddress] = []
        self._complaint = ""
        self._where = ""  # nodes may join
        try:
            self._open(options.join, folder)
        except BaseException:
            self.close()
            raise

    def _open(self, join: str, folder: ClusterFolder) -> None:
        authority, identity = Authority(folder.path), folder.server
        from faasmoe.platforms.cluster.joining.join_listener import JoinListener  # noqa: PLC0415 (needs the extra)
        from faasmoe.platforms.cluster.joining.renewal import Renewal  # noqa: PLC0415

        authority.provide(identity, Role.SERVER, "server")
        self._stack.enter_context(Renewal(lambda: authority.provide(identity, Role.SERVER, "server")))
        if join:
            socket = self._stack.enter_context(bound(read_address(join), "--platform-option join"))
            listener = JoinListener(socket, authority, identity, TokenBook(folder.path), self._members)
            self._stack.enter_context(listener)
            listener.start()
            self._where = str(address_of(socket))
            log.info("nodes may join at %s", self._where)

    def nodes(self) -> Sequence[NodeAddress]:
        """See `Discovery.nodes`."""
        listed = self._file.nodes() if self._file else ()
        if self._where:
            self._read_members()
        return list(dict.fromkeys([*listed, *self._joined]))

    def _read_members(self) -> None:
        try:
            members = self._members.members().values()
        except OptionError as error:
            if str(error) != self._complaint:
                log.warning("the members stay those of before: %s", error)
                self._complaint = str(error)
            return
        self._joined = [NodeAddress(member.host, member.port) for member in members]

    def first(self) -> Sequence[NodeAddress]:
        """The nodes, as soon as there is one."""
        if not (nodes := self.nodes()):
            log.info("waiting for a node to join at %s", self._where)
            never = Event()
            while not (nodes := self.nodes()):
                never.wait(_TICK)
        return nodes

    def close(self) -> None:
        """See `Discovery.close`."""
        self._stack.close()
