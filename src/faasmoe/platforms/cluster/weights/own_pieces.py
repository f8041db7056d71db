"""Pieces of the weights that a node has, for others that cannot get them from the server's own files."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.frame import FrameKind, framed
from faasmoe.platforms.cluster.protocol.messages import Failure, ReadPiece
from faasmoe.platforms.cluster.weights.digest_book import OpenFile
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights


def answer(weights: NodeWeights, asked: ReadPiece) -> Sequence[Buffer]:
    """The frame that answers: the piece, or a failure if the node does not have it, or cannot read it."""
    cause = "its weights are not on this node"
    if there := weights.placed(asked.function, asked.digest):
        spec, content = there
        pieces = [(piece, i) for i, each in enumerate(content.ranges) for piece in each.pieces()]
        if 0 <= asked.piece < len(pieces):
            piece, number = pieces[asked.piece]
            room = memoryview(bytearray(piece.length))
            try:
                with OpenFile(spec.files[number].file) as file:
                    file.read(piece.offset, room)
                return framed(FrameKind.PIECE, msgspec.msgpack.encode(asked.piece), [room])
            except OSError as error:
                cause = f"{spec.files[number].file} cannot be read: {error.strerror}"
    failure = Failure(kind="weights", cause=cause, function=asked.function, error="elsewhere")
    return framed(FrameKind.MESSAGE, messages.encode(failure))
