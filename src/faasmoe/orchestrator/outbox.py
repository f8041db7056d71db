"""What waits to be sent to the gateway."""

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
    """Takes messages from any thread, gives them to one. Bounded: the engine never waits, requests are dropped."""

    def __init__(self) -> None:
        self.dropped: queue.SimpleQueue[str] = queue.SimpleQueue()  # ids of requests to be cancelled
        self._changed = threading.Condition()  # guards all below
        self._messages: list[Message] = []
        self._pieces: list[tuple[str, Piece]] = []
        self._unsent: Counter[str] = Counter()
        self._slow: set[str] = set()  # requests of which only the last piece is wanted

    def post(self, message: Message) -> None:
        """Send a message. Waits while very many others do, which holds up nobody but the gateway that sent so many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._messages) < _MOST_MESSAGES)
            self._messages.append(message)
            self._changed.notify_all()

    def piece(self, request_id: str, piece: Piece) -> None:
        """Send a piece. After one too many nothing is sent but the last, as an error: the id is put into `dropped`."""
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
        """Everything that waits, all pieces as one message; at an instant of `time.monotonic` it may be nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._pieces, max(0.0, until - time.monotonic()))
            messages, self._messages = self._messages, []
            if self._pieces:
                messages.append(Pieces(tuple(self._pieces)))
                self._pieces = []
                self._unsent.clear()
            self._changed.notify_all()
            return messages
