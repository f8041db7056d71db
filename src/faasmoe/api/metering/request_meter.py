"""What one API request is charged: its tenant's limits while it runs, and a record in the ledger when it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import asdict

from faasmoe.errors import ServingError
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.request import Piece, ResourceUsage
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.ledger.ledger import Record
from faasmoe.tenancy.limits.lease import Lease, LeaseRequest
from faasmoe.tenancy.service import TenancyService

DURABLE_SECONDS = 1.0  # that an answer waits for its record
_FINAL_SECONDS = 30.0  # that a record waits for what a cancelled request has used


class RequestMeters:
    """Opens an account for each request, and keeps those of cancelled ones until it is known what they have used."""

    def __init__(self, tenancy: TenancyService) -> None:
        self.tenancy = tenancy
        self._closing: set[asyncio.Task[None]] = set()  # asyncio itself keeps no hold of tasks

    def open(
        self, caller: Caller, request_id: str, model: str, prompts: Sequence[int], choices: int
    ) -> RequestMeter:
        """For a request with so many answers to each of some prompts, of which the tokens are given."""
        return RequestMeter(self, caller, request_id, model, prompts, choices)

    def later(self, closing: Coroutine[None, None, None]) -> None:
        """Run it beside everything else."""
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def settled(self) -> None:
        """Until all accounts that were closed are recorded."""
        while self._closing:
            await asyncio.wait(self._closing)


class RequestMeter:
    """See `RequestMeters.open`. For one asyncio loop."""

    def __init__(
        self,
        accounts: RequestMeters,
        caller: Caller,
        request_id: str,
        model: str,
        prompts: Sequence[int],
        choices: int,
    ) -> None:
        self._accounts = accounts
        self._tenancy = accounts.tenancy
        self._caller = caller
        self._id = request_id
        self._model = model
        self._prompts = prompts
        self._choices = choices
        self._begun = time.monotonic()
        self._first: float | None = None  # seconds to the first piece
        self._tokens = [0] * (len(prompts) * choices)
        self._lease: Lease | None = None
        self._finals: Sequence[asyncio.Future[Piece | None]] = ()
        self._recorded: Future[bool] | None = None
        self._ended = False

    def admit(self, most_tokens: int, stated: bool) -> int:
        """Begin within the tenant's limits. Raises `LimitExceeded`.

        An answer has `most_tokens` at most, as the client has `stated`, or because the context has room for no more.
        Returns how many it may have: not less than what was stated.
        """
        arrival = self._caller.arrival
        if arrival is None:
            return most_tokens
        self._lease = arrival.admit(LeaseRequest(sum(self._prompts), len(self._tokens), most_tokens, stated))
        return self._lease.most

    def refused(self, error: BaseException) -> None:
        """The orchestrator did not take it: its tokens count for nothing, nor does the request if that is our fault."""
        if self._lease is not None and self._caller.arrival is not None:
            self._lease.cancel()
            self._caller.arrival.refused(by_server=isinstance(error, ServingError))

    def taken(self, streams: Sequence[PieceStream]) -> None:
        """The orchestrator runs it. From now on there will be a record."""
        self._finals = [stream.final for stream in streams]

    def piece(self, index: int, piece: Piece) -> int:
        """Count a piece of response `index`. Returns how many tokens have been generated since the piece before."""
        if self._first is None:
            self._first = time.monotonic() - self._begun
        new = piece.tokens - self._tokens[index]
        self._tokens[index] = piece.tokens
        if self._lease is not None:
            self._lease.generated(new)
        return new

    @property
    def completion_tokens(self) -> int:
        """Tokens of all responses so far."""
        return sum(self._tokens)

    async def settle(self) -> None:
        """All answers are there: record them, and wait until that is durable, if the database does its work."""
        self.end()
        if self._recorded is not None and not self._recorded.done():
            await asyncio.wait([asyncio.wrap_future(self._recorded)], timeout=DURABLE_SECONDS)

    def end(self) -> None:
        """It is over, however it ended. May be called twice."""
        if self._caller.arrival is not None:
            self._caller.arrival.leave()
        if self._ended or not self._finals:
            return
        self._ended = True
        if all(final.done() for final in self._finals):
            self._record()
        else:  # cancelled: what it has used by then is told soon
            self._accounts.later(self._close())

    async def _close(self) -> None:
        try:
            await asyncio.wait(self._finals, timeout=_FINAL_SECONDS)
        finally:
            self._record()

    def _record(self) -> None:
        """Write down what it has used, and only then give back what it was allowed to use."""
        lasts = [final.result() if final.done() and not final.cancelled() else None for final in self._finals]
        used = _together([last.used for last in lasts if last and last.used])
        tokens = [last.tokens if last else seen for last, seen in zip(lasts, self._tokens, strict=True)]
        began = self._first is not None or used.orchestrator_cpu_seconds > 0
        firsts = lasts[:: self._choices]  # other answers to the same prompt always find it there
        record = Record(
            self._id,
            self._caller.name,
            self._caller.key_id,
            self._model,
            self._tenancy.calendar(),
            _outcome(lasts),
            sum(self._prompts) if began else 0,
            sum(first.cached_tokens for first in firsts if first),
            sum(tokens),
            self._first,
            time.monotonic() - self._begun,
            **asdict(used),
        )
        self._recorded = self._tenancy.record(record)
        if self._lease is not None:
            self._lease.generated(
                record.completion_tokens - sum(self._tokens)
            )  # what came after the client had left
            self._lease.end()


def _outcome(lasts: Sequence[Piece | None]) -> str:
    reasons = {"error" if last is None or last.error else last.finish_reason or "error" for last in lasts}
    return next((reason for reason in ("error", "cancelled", "length") if reason in reasons), "stop")


def _together(shares: Sequence[ResourceUsage]) -> ResourceUsage:
    return ResourceUsage(
        *(sum(values) for values in zip(*(asdict(share).values() for share in shares), strict=True))
    )
