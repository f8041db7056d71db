"""One reader, and the bodies that wait for it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from faasmoe.errors import EngineStopped, ProcessLost, RequestError
from faasmoe.readers.launcher import Reader, ReaderLauncher
from faasmoe.readers.messages import Answer, Done, Job, frame
from faasmoe.readers.queue import FairQueue
from faasmoe.util.backoff import Backoff
from faasmoe.util.watchdog import Overdue, Stalled, watched

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds that a request waits until its body has been read
_TRIES = 3  # readers that are lost over one body, for no reason of the body's
_PAUSES = (0.1, 2.0)  # seconds between attempts to have a reader, at first and at most
_CPU_SECONDS, _CPU_SECONDS_A_BYTE = 2.0, 2.5e-6  # a body may take; text takes 1e-6 a byte
_WALL = 6.0  # times as long, on a machine that is busy
_WAITS = 10.0  # seconds beside
_ITS_OWN_DOING = {  # signals that end a reader because of what it does
    signal.SIGPROF: "to read this request takes too long",
    signal.SIGABRT: "to read this request takes too much memory",
    signal.SIGSEGV: "this request cannot be read",
    signal.SIGBUS: "this request cannot be read",
    signal.SIGILL: "this request cannot be read",
    signal.SIGFPE: "this request cannot be read",
}


@dataclass(eq=False)
class _Ticket:
    job: Job
    answer: asyncio.Future[Answer]


class Lane:
    """Has one reader read bodies, in turns that are fair to tenants; has another when it is lost. For one loop."""

    def __init__(
        self,
        launcher: ReaderLauncher,
        niceness: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        watch: Callable[..., Awaitable[Answer]] = watched,
    ) -> None:
        self._launcher = launcher
        self._niceness = niceness
        self._sleep = sleep
        self._watch = watch
        self._queue: FairQueue[_Ticket] = FairQueue()
        self._came = asyncio.Event()
        self._reader: Reader | None = None
        self.lost = 0  # readers so far, for whatever reason

    async def read(self, tenant: str, job: Job) -> Answer:
        """The answer to `job`. Raises `EngineBusy`, `EngineStopped`, or `RequestError` if the body ended a reader."""
        ticket = _Ticket(job, asyncio.get_running_loop().create_future())
        self._queue.put(tenant, ticket)
        self._came.set()
        try:
            async with asyncio.timeout(PATIENCE):
                return await ticket.answer
        except TimeoutError:
            raise EngineStopped(f"the request was not read within {PATIENCE:g} s") from None

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                if (await self.reader()).ended.done():
                    self._replace()
                elif not len(self._queue):
                    self._came.clear()
                    await self._came.wait()
                else:
                    ticket = self._queue.pop()
                    if not ticket.answer.done():  # somebody still wants it
                        await self._serve(ticket)
        finally:
            if self._reader is not None:
                self._reader.hang_up()

    async def _serve(self, ticket: _Ticket) -> None:
        try:
            answer = await self._read(ticket.job)
        except Exception as error:  # noqa: BLE001 - it is for whoever asks
            if not ticket.answer.done():
                ticket.answer.set_exception(error)
        else:
            if not ticket.answer.done():
                ticket.answer.set_result(answer)

    async def reader(self) -> Reader:
        """The one there is, or the next."""
        backoff = Backoff(*_PAUSES)
        while self._reader is None:
            try:
                self._reader = await self._launcher.fork(self._niceness)
                self._reader.ended.add_done_callback(lambda _: self._came.set())
            except Exception as error:  # noqa: BLE001 - whatever it is: there will be one some day
                log.warning("there is no reader: %s", error)
                await self._sleep(backoff.failed())
        return self._reader

    def _replace(self) -> None:
        """The reader has ended while it had nothing to do."""
        if self._reader is not None:
            self._reader.hang_up()
        self._reader = None
        self.lost += 1

    async def _read(self, job: Job) -> Answer:
        wall = _WAITS + _WALL * job.cpu_seconds
        for _ in range(_TRIES):
            reader = await self.reader()
            try:
                answer = await self._watch(reader.ask(frame(job)), lambda pid=reader.pid: pid, wall)
            except (ProcessLost, Stalled) as error:
                await self._bury(reader, error)
                continue
            except Overdue as error:
                await self._bury(reader, error)
                break
            if answer.last:
                self._reader = None
                await self._launcher.leave(reader)
            return answer
        raise EngineStopped("this request could not be read; try again")

    async def _bury(self, reader: Reader, error: Exception) -> None:
        """Raises `RequestError` if it died of what it read."""
        self._reader = None
        self.lost += 1
        status = await self._launcher.end(reader)
        log.warning("a reader was lost: %s, status %s", error, status)
        if isinstance(error, ProcessLost) and status is not None and -status in _ITS_OWN_DOING:
            raise RequestError(_ITS_OWN_DOING[signal.Signals(-status)])


def cpu_seconds(size: int) -> float:
    """How long a reader may compute over a body of so many bytes."""
    return _CPU_SECONDS + _CPU_SECONDS_A_BYTE * size


def asked_by(answer: Answer) -> Done:
    """`answer`, if it is one. Raises the `RequestError` that it may be instead."""
    if isinstance(answer, Done):
        return answer
    raise answer.error()
