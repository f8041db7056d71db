"""Messages that wait to be sent to the gateway."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter

from faasmoe.protocol.messages import Message, Pieces
from faasmoe.protocol.request import Piece

MOST_UNSENT = 1024  # pieces of one request
_MOST_MESSAGES = 1024
_TOO_SLOW = f"the gateway does not keep up: {MOST_UNSENT} pieces of this request wait for it"


class Outbox:
    """A bounded queue of messages, from any thread to one. A full queue drops requests; the engine never waits."""

    def __init__(self) -> None:
        self.dropped: queue.SimpleQueue[str] = queue.SimpleQueue()  # ids of requests to be cancelled
        self._changed = threading.Condition()  # guards all below
        self._messages: list[Message] = []
        self._pieces: list[tuple[str, Piece]] = []
        self._unsent: Counter[str] = Counter()
        self._slow: set[str] = set()  # requests of which only the last piece is wanted

    def post(self, message: Message) -> None:
        """Queue a message. Waits while the queue is full, which holds up nobody but the gateway that filled it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < _MOST_MESSAGES)
            self._messages.append(message)
            self._changed.notify_all()

    def piece(self, request_id: str, piece: Piece) -> None:
        """Queue a piece. If too many pieces of its request wait, the request is put into `dropped`, and only its last
        piece is queued, as an error.
        """
        with self._changed:
            if request_id in self._slow:
                if not piece.last:
                    return
                self._slow.discard(request_id)
                piece = Piece("", piece.tokens, error=_TOO_SLOW, used=piece.used)
            elif self._unsent[request_id] >= MOST_UNSENT and not piece.last:
                self._slow.add(request_id)
                self.dropped.put(request_id)
                return
            self._unsent[request_id] += 1
            self._pieces.append((request_id, piece))
            self._changed.notify_all()

    def take(self, until: float) -> list[Message]:
        """Take all messages, all pieces as one. Waits for a message until the instant `until` of `time.monotonic`."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._pieces, max(0.0, until - time.monotonic()))
            messages, self._messages = self._messages, []
            if self._pieces:
                messages.append(Pieces(tuple(self._pieces)))
                self._pieces = []
                self._unsent.clear()
            self._changed.notify_all()
            return messages
