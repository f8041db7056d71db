from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from faasmoe.api.metering import usage as module
from faasmoe.api.metering.usage import MOST_AT_ONCE, MOST_WAITING, UsageQueries
from faasmoe.errors import EngineBusy
from tests.tenancies import PlayedTenancy


def test_few_sum_at_once_and_few_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    running = threading.Semaphore(0)

    def slow(*_: Any) -> Sequence[Any]:
        running.release()
        assert go.wait(30)
        return []

    monkeypatch.setattr(module, "usage", slow)

    async def test() -> None:
        sums = UsageQueries(PlayedTenancy())  # type: ignore[arg-type]
        asked = [
            asyncio.create_task(sums.facts("a", "0001-01-01", "9999-12-31", None))
            for _ in range(MOST_AT_ONCE + MOST_WAITING)
        ]
        for _ in range(MOST_AT_ONCE):
            assert await asyncio.to_thread(running.acquire, timeout=30)
        with pytest.raises(EngineBusy):
            await sums.facts("a", None, None, None)
        assert not running.acquire(blocking=False)
        go.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked), 30)
        assert {answer["to"] for answer in answers} == {"9999-12-31"}
        await sums.facts("a", None, None, None)

    asyncio.run(test())
