from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import pytest

from faasmoe.cli.server.in_time import in_time, on_thread


class Hanging:
    """Never left by itself."""

    def __init__(self) -> None:
        self.cancelled = False

    async def __aenter__(self) -> str:
        return "value"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


def test_what_hangs_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    hanging = Hanging()

    async def run() -> None:
        async with in_time("the thing", 0.01, hanging) as value:
            assert value == "value"

    asyncio.run(run())
    assert hanging.cancelled
    assert "not closed in time: the thing" in caplog.text


def test_a_thread_that_hangs_is_helped_and_not_waited_for_longer(caplog: pytest.LogCaptureFixture) -> None:
    free, left = threading.Event(), threading.Event()

    @contextmanager
    def resource() -> Iterator[int]:
        yield threading.get_ident()
        assert free.wait(30)
        left.set()

    async def run() -> None:
        async with on_thread("the thing", 0.01, resource(), free.set) as thread:
            assert thread != threading.get_ident()

    asyncio.run(run())
    assert left.is_set()
    assert "not closed in time: the thing" in caplog.text


def test_what_was_being_entered_when_it_was_cancelled_is_left() -> None:
    entering, go_on, left = threading.Event(), threading.Event(), threading.Event()

    @contextmanager
    def resource() -> Iterator[None]:
        entering.set()
        assert go_on.wait(30)
        yield
        left.set()

    async def enter() -> None:
        async with on_thread("the thing", 30, resource()):
            raise AssertionError("it was cancelled before")

    async def run() -> None:
        task = asyncio.create_task(enter())
        await asyncio.to_thread(entering.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert left.is_set()


class Failing(Hanging):
    async def __aexit__(self, *_: object) -> None:
        raise OSError(24, "SECRET")


def test_errors_of_leaving_are_logged_and_what_else_there_is_is_left(caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def failing() -> Iterator[None]:
        yield
        raise OSError(24, "SECRET")

    async def run() -> None:
        async with in_time("the one", 30, Failing()), on_thread("the other", 30, failing()):
            pass

    asyncio.run(run())
    assert [record.getMessage() for record in caplog.records] == [
        "not closed in order: the other",
        "not closed in order: the one",
    ]


def test_errors_of_entering_are_raised() -> None:
    @contextmanager
    def broken() -> Iterator[None]:
        raise LookupError
        yield

    async def run() -> None:
        async with on_thread("the thing", 30, broken()):
            pass

    with pytest.raises(LookupError):
        asyncio.run(run())
