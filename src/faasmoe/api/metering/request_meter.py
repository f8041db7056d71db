"""The meter of one API request: its tenant's limits while it runs, and a record in the ledger when it has ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import TypeVar

from faasmoe.api.parsed_request import EndUser
from faasmoe.errors import ServingError
from faasmoe.fleet.stream import PieceStream
from faasmoe.protocol.request import Piece, ResourceUsage
from faasmoe.tenancy.authentication import Caller
from faasmoe.tenancy.ledger.ledger import Record
from faasmoe.tenancy.limits.lease import Lease, LeaseRequest
from faasmoe.tenancy.service import TenancyService

DURABLE_SECONDS = 1.0  # that a response waits for its record to be committed
T = TypeVar("T")
_FINAL_SECONDS = 30.0  # that a record waits for the usage of a cancelled request


class RequestMeters:
    """The shared part of all request meters; it keeps meters of cancelled requests until their usage is known."""

    def __init__(self, tenancy: TenancyService) -> None:
        self.tenancy = tenancy
        self._closing: set[asyncio.Task[None]] = set()  # asyncio itself keeps no reference to tasks

    def close_later(self, closing: Coroutine[None, None, None]) -> None:
        """Run the end of a meter in a task of its own."""
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def settled(self) -> None:
        """Return when all requests that have ended are recorded."""
        while self._closing:
            await asyncio.wait(self._closing)


class RequestMeter:
    """Meters one request, which has `choices` responses to each of its prompts. For one asyncio loop.

    `admit` comes first; then `refused`, or `taken`, pieces, and `settle` or `end`.
    """

    def __init__(
        self,
        meters: RequestMeters,
        *,
        caller: Caller,
        request_id: str,
        model: str,
        prompts: Sequence[int],
        choices: int,
        end_user: EndUser,
    ) -> None:
        """`prompts` are numbers of tokens."""
        self._meters = meters
        self._tenancy = meters.tenancy
        self._caller = caller
        self._id = request_id
        self._model = model
        self._prompts = prompts
        self._choices = choices
        self._end_user = end_user
        self._begun = time.monotonic()
        self._first: float | None = None  # seconds to the first piece
        self._tokens = [0] * (len(prompts) * choices)  # by response
        self._cached = [0] * len(self._tokens)
        self._lease: Lease | None = None
        self._finals: Sequence[asyncio.Future[Piece | None]] = ()
        self._recorded: Future[bool] | None = None
        self._ended = False

    def admit(self, most_tokens: int, stated: bool) -> int:
        """Reserve tokens within the tenant's limits. Returns how many a response may have. Raises `LimitExceeded`.

        `most_tokens` is how many the client has `stated`, or how many the context has room for. Stated ones are never
        cut.
        """
        arrival = self._caller.arrival
        if arrival is None:
            return most_tokens
        self._lease = arrival.admit(LeaseRequest(sum(self._prompts), len(self._tokens), most_tokens, stated))
        return self._lease.most

    def refused(self, error: BaseException) -> None:
        """The orchestrator has refused the request: no tokens count, nor does the request if the server is at fault."""
        if self._lease is not None and self._caller.arrival is not None:
            self._lease.cancel()
            self._caller.arrival.refused(by_server=isinstance(error, ServingError))

    def taken(self, streams: Sequence[PieceStream]) -> None:
        """The orchestrator runs the request. From now on there will be a record."""
        self._finals = [stream.final for stream in streams]

    def piece(self, index: int, piece: Piece) -> int:
        """Count a piece of response `index`. Returns how many tokens have been generated since the piece before."""
        if self._first is None:
            self._first = time.monotonic() - self._begun
        new = piece.tokens - self._tokens[index]
        self._tokens[index] = piece.tokens
        self._cached[index] = piece.cached_tokens
        if self._lease is not None:
            self._lease.generated(new)
        return new

    @property
    def completion_tokens(self) -> int:
        """Tokens of all responses so far."""
        return sum(self._tokens)

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that were in the prefix cache so far."""
        return sum(self._of_firsts(self._cached))

    def _of_firsts(self, responses: Sequence[T]) -> Sequence[T]:
        """Those to each prompt's first choice: the others always find the prompt in the prefix cache."""
        return responses[:: self._choices]

    async def settle(self) -> None:
        """Record the request, whose responses are complete, and wait for the commit for `DURABLE_SECONDS` at most."""
        self.end()
        if self._recorded is not None and not self._recorded.done():
            await asyncio.wait([asyncio.wrap_future(self._recorded)], timeout=DURABLE_SECONDS)

    def end(self) -> None:
        """The request has ended, with or without success. May be called twice."""
        if self._caller.arrival is not None:
            self._caller.arrival.leave()
        if self._ended or not self._finals:
            return
        self._ended = True
        if all(final.done() for final in self._finals):
            self._record()
        else:  # cancelled: the orchestrator soon says what it has used
            self._meters.close_later(self._close())

    async def _close(self) -> None:
        try:
            await asyncio.wait(self._finals, timeout=_FINAL_SECONDS)
        finally:
            self._record()

    def _record(self) -> None:
        """Write the record, and only then give back what the lease has reserved."""
        lasts = [final.result() if final.done() and not final.cancelled() else None for final in self._finals]
        used = _total([last.used for last in lasts if last and last.used])
        tokens = [last.tokens if last else seen for last, seen in zip(lasts, self._tokens, strict=True)]
        began = self._first is not None or used.orchestrator_cpu_seconds > 0
        record = Record(
            id=self._id,
            tenant=self._caller.name,
            key=self._caller.key_id,
            model=self._model,
            user=self._end_user.name,
            metadata=json.dumps(self._end_user.metadata) if self._end_user.metadata else "",
            ended=self._tenancy.calendar(),
            outcome=_outcome(lasts),
            prompt_tokens=sum(self._prompts) if began else 0,
            cached_tokens=sum(first.cached_tokens for first in self._of_firsts(lasts) if first),
            completion_tokens=sum(tokens),
            first_token_seconds=self._first,
            seconds=time.monotonic() - self._begun,
            **asdict(used),
        )
        self._recorded = self._tenancy.record(record)
        if self._lease is not None:
            self._lease.generated(record.completion_tokens - sum(self._tokens))  # after the client had left
            self._lease.end()


def _outcome(lasts: Sequence[Piece | None]) -> str:
    reasons = {"error" if last is None or last.error else last.finish_reason or "error" for last in lasts}
    return next((reason for reason in ("error", "cancelled", "length") if reason in reasons), "stop")


def _total(shares: Sequence[ResourceUsage]) -> ResourceUsage:
    return ResourceUsage(
        *(sum(values) for values in zip(*(asdict(share).values() for share in shares), strict=True))
    )
