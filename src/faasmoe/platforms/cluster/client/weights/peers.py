"""Pieces of weights from nodes that have them, for a server whose own files are damaged, replaced or gone."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable

from faasmoe.platforms.cluster.client.link import NodeLink
from faasmoe.platforms.cluster.client.membership import Membership
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.frame import FrameKind
from faasmoe.platforms.cluster.protocol.messages import ReadPiece
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)

# function, its content, number of a piece, room for it; whether the room has its bytes now
Elsewhere = Callable[[str, FunctionContent, int, memoryview], bool]

_SECONDS = 30.0  # for a node to send a piece


class WeightPeers:
    """The nodes of a pool but for the one that `asks`. They need no way to each other: pieces go through the head."""

    def __init__(self, membership: Membership, asks: str) -> None:
        self._membership = membership
        self._asks = asks

    def read(self, function: str, content: FunctionContent, number: int, room: memoryview) -> bool:
        """Fill `room` with a piece from the first node that has it with the right bytes. Returns whether one has."""
        digest = list(content.pieces().values())[number]
        for link in self._membership.links:
            if link.epoch and link.name != self._asks:
                try:
                    got = self._read(link, ReadPiece(function, content.digest, number), room)
                except Lost as error:
                    log.debug("node %s: no piece of %s: %s", link.name, function, error)
                    continue
                if got and hashlib.sha256(room).digest() == digest:
                    return True
        return False

    def _read(self, link: NodeLink, order: ReadPiece, room: memoryview) -> bool:
        deadline = time.monotonic() + _SECONDS
        connection = link.open("orders")
        try:
            connection.send(order, deadline)
            frame = connection.frame(deadline)
            if frame.kind != FrameKind.PIECE or frame.body != room.nbytes:
                return False
            connection.fill([room], deadline)
        finally:
            link.drop(connection)
        return True
