from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from faasmoe.api.metering.idle_meter import IdleMeter
from faasmoe.errors import PlatformError
from faasmoe.platforms.base import PoolStatus, PoolTotals
from faasmoe.tenancy.ledger.ledger import Idle
from faasmoe.util.failure_log import FailureLog

log = logging.getLogger("faasmoe.test")


class Pool:
    """Whose instances have lived so long, or which does not answer."""

    def __init__(self) -> None:
        self.gb_seconds: float | None = 0.0
        self.asked = asyncio.Event()

    def status(self) -> PoolStatus:
        if self.gb_seconds is None:
            raise PlatformError("local", "", "it is gone")
        return PoolStatus(functions=[], memory_used=0, totals=PoolTotals(instance_gb_seconds=self.gb_seconds))


def facts(entry: Idle) -> tuple[str, str, float, float, float]:
    return entry.tenant, entry.model, entry.began, entry.ended, entry.gb_seconds


def test_shares_are_written_with_their_period(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        pool, written, now = Pool(), list[Idle](), iter([100.0, 110.0, 130.0])
        meter = IdleMeter(pool.status, written.append, "m", FailureLog(log), clock=lambda: next(now))
        meter.note({"a": 1.0})
        meter.note({"b": 3.0})
        pool.gb_seconds = 12.0
        await meter.end_period()
        assert [facts(entry) for entry in written] == [("a", "m", 100, 110, 2), ("b", "m", 100, 110, 6)]
        pool.gb_seconds = None
        meter.note({"b": 1.0})
        with caplog.at_level(logging.WARNING):
            await meter.end_period()
        assert "it is gone" in caplog.text
        pool.gb_seconds = 15.0
        await meter.end_period()
        assert [facts(entry) for entry in written[2:]] == [("b", "m", 110, 130, 2)]

    asyncio.run(test())


def test_periods_end_by_themselves_and_the_last_with_it() -> None:
    async def test() -> None:
        pool, written = Pool(), asyncio.Queue[Idle]()
        pool.gb_seconds = 2.0
        async with IdleMeter(pool.status, written.put_nowait, "m", FailureLog(log), period=0.01) as meter:
            meter.note({"a": 1.0})
            assert (await asyncio.wait_for(written.get(), 30)).gb_seconds == pytest.approx(1)
        pool.gb_seconds = 2.0
        async with IdleMeter(pool.status, written.put_nowait, "m", FailureLog(log), period=3600) as meter:
            meter.note({"a": 0.5})
        assert written.get_nowait().gb_seconds == pytest.approx(1.5)

    asyncio.run(test())


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("can't start new thread"),
        PlatformError("local", "", "it is gone"),
        ConnectionResetError(),
        ValueError("what nobody thought of"),
    ],
)
def test_whatever_fails_it_goes_on(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        pool, written = Pool(), asyncio.Queue[Idle]()
        pool.gb_seconds = 2.0
        tries = 0

        def status() -> PoolStatus:
            nonlocal tries
            tries += 1
            if tries < 20:
                raise error
            return pool.status()

        failures = FailureLog(log)
        async with IdleMeter(status, written.put_nowait, "m", failures, period=0.001) as meter:
            meter.note({"a": 1.0})
            assert (await asyncio.wait_for(written.get(), 30)).gb_seconds == pytest.approx(1)
        assert (failures.count, failures.cause) == (19, None)

    asyncio.run(test())
    assert len(caplog.records) == 1
