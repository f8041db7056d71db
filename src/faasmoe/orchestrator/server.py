"""The orchestrator's end of its socket: one thread reads the gateway's messages, one writes messages to it."""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import NoReturn, Protocol

from faasmoe.errors import EngineStopped, FaasmoeError, MessageError
from faasmoe.orchestrator.outbox import Outbox
from faasmoe.protocol.errors import client_message, failure_of
from faasmoe.protocol.messages import (
    HEADER,
    Accepted,
    Cancel,
    Failed,
    Message,
    Pieces,
    Ready,
    Refused,
    ServedTokens,
    Starting,
    StatsReport,
    Submit,
    ToOrchestrator,
    body_length,
    pack,
    read_order,
)
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.protocol.stats import EngineStats

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
_TOO_LARGE = "a piece of text is too large to be sent"


class Runner(Protocol):
    """An engine, as far as this module uses it."""

    def submit(self, request: GenerationRequest, listener: Callable[[Piece], None]) -> None:
        """Take a request; `listener` gets its pieces and must not block."""

    def cancel(self, request_id: str) -> None:
        """Drop a request; its listener gets a last piece."""

    def take_busy(self) -> dict[str, float]:
        """GB-seconds by tenant since the last time."""

    def take_served(self) -> dict[str, int]:
        """Tokens by tenant since the last time."""

    def served_elsewhere(self, tokens: Mapping[str, int]) -> None:
        """Others have served tokens to tenants."""


class Server:
    """Speaks with one gateway over `connection`.

    `gone` is called with an exit status, on one of the two threads, when there is nobody to speak with any more: 0 if
    the gateway has hung up, 1 if it sends what is no message.
    """

    def __init__(self, connection: socket.socket, gone: Callable[[int], None]) -> None:
        self._connection = connection
        self._gone = gone
        self._outbox = Outbox()
        self._runner: Runner | None = None
        self._report: Callable[[], Message] = Starting

    def start(self) -> None:
        """Send heartbeats from now on."""
        for work in (self._read, self._write):
            name = f"gateway{work.__name__}"
            threading.Thread(target=self._until_gone, args=(work,), name=name, daemon=True).start()

    def serve(self, runner: Runner, stats: Callable[[], EngineStats]) -> None:
        """Accept requests from now on."""
        self._runner = runner
        self._report = lambda: StatsReport(stats(), runner.take_busy(), runner.take_served())
        self._outbox.post(Ready())

    def fail(self, error: Exception) -> None:
        """Tell the gateway why the model cannot be served. The gateway hangs up then."""
        self._outbox.post(Failed(failure_of(error)))

    def cancel_dropped(self, seconds: float) -> None:
        """Cancel a request whose pieces the gateway does not read. Waits up to `seconds` for one."""
        with suppress(queue.Empty):
            self._cancel((self._outbox.dropped.get(timeout=seconds),))

    def _until_gone(self, work: Callable[[], NoReturn]) -> None:
        """Run one of the threads. The process exits when it ends, because requests would wait for ever without it."""
        try:
            work()
        except OSError:
            self._gone(0)
        except MessageError as error:
            log.error("the gateway sent %s", error)
            self._gone(1)
        except Exception:  # a defect
            log.exception("messages cannot be handled")
            self._gone(1)

    def _read(self) -> NoReturn:
        while True:
            self._obey(self._receive())

    def _receive(self) -> ToOrchestrator:
        header = self._exactly(HEADER.size)
        return read_order(self._exactly(body_length(header)))

    def _exactly(self, count: int) -> bytes:
        """Raises `ConnectionError` if the gateway has hung up."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self._connection.recv_into(view)
            if got == 0:
                raise ConnectionError("the gateway has hung up")
            view = view[got:]
        return bytes(data)

    def _obey(self, order: ToOrchestrator) -> None:
        if isinstance(order, Submit):
            self._submit(order)
        elif isinstance(order, Cancel):
            self._cancel(order.ids)
        elif isinstance(order, ServedTokens):
            if self._runner:
                self._runner.served_elsewhere(order.tokens)
        else:
            self._outbox.post(self._report())

    def _submit(self, order: Submit) -> None:
        taken: list[str] = []
        try:
            if self._runner is None:
                raise EngineStopped("the orchestrator is still starting")
            for request in order.requests:
                self._runner.submit(request, partial(self._outbox.piece, request.id))
                taken.append(request.id)
        except Exception as error:  # whatever it is, others' requests must not suffer from it
            if not isinstance(error, FaasmoeError):
                log.exception("a request cannot be taken")
                error = EngineStopped(client_message(error))
            self._cancel(tuple(taken))
            self._outbox.post(Refused(order.number, failure_of(error)))
        else:
            self._outbox.post(Accepted(order.number))

    def _cancel(self, ids: tuple[str, ...]) -> None:
        for request_id in ids:
            if self._runner:
                self._runner.cancel(request_id)

    def _write(self) -> NoReturn:
        due = time.monotonic()
        while True:
            messages = self._outbox.take(due)
            if time.monotonic() >= due:
                messages.append(self._report())
                due = time.monotonic() + REPORT_SECONDS
            self._connection.sendall(b"".join(map(packed, messages)))


def packed(message: Message) -> bytes:
    """Encode a message. Pieces that are too large for one message become several, or an error."""
    try:
        return pack(message)
    except MessageError:
        if not isinstance(message, Pieces):
            raise
    half = len(message.pieces) // 2
    if half:
        return packed(Pieces(message.pieces[:half])) + packed(Pieces(message.pieces[half:]))
    request_id, piece = message.pieces[0]
    return pack(Pieces(((request_id, Piece("", piece.tokens, error=_TOO_LARGE)),)))
