from __future__ import annotations

import asyncio

import pytest

from faasmoe.api.disconnect import while_connected


async def stays() -> dict[str, str]:
    await asyncio.Event().wait()
    raise AssertionError("it waits for ever")


async def leaves() -> dict[str, str]:
    return {"type": "http.disconnect"}


def test_what_is_answered_in_time_is_returned() -> None:
    async def work() -> int:
        return 5

    assert asyncio.run(while_connected(stays, work())) == 5


def test_errors_are_raised() -> None:
    async def work() -> int:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(while_connected(stays, work()))


def test_work_for_a_client_that_left_is_cancelled() -> None:
    cancelled = []

    async def work() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        return 5

    assert asyncio.run(while_connected(leaves, work())) is None
    assert cancelled == [True]


def test_what_comes_before_the_departure_is_passed_over() -> None:
    messages = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, str]:
        return messages.pop(0)

    async def work() -> int:
        await asyncio.Event().wait()
        return 5

    assert asyncio.run(while_connected(receive, work())) is None
    assert not messages
