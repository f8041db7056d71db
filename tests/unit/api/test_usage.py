from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from faasmoe.api import usage as module
from faasmoe.api.usage import MOST_AT_ONCE, MOST_WAITING, Sums
from faasmoe.errors import EngineBusy
from tests.offices import PlayedOffice


def test_few_sum_at_once_and_few_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    running: list[int] = []

    def slow(*_: Any) -> Sequence[Any]:
        running.append(1)
        assert go.wait(30)
        return []

    monkeypatch.setattr(module, "usage", slow)

    async def test() -> None:
        sums = Sums(PlayedOffice())  # type: ignore[arg-type]
        asked = [
            asyncio.create_task(sums.facts("a", "0001-01-01", "9999-12-31", None))
            for _ in range(MOST_AT_ONCE + MOST_WAITING)
        ]
        while len(running) < MOST_AT_ONCE:
            await asyncio.sleep(0)
        with pytest.raises(EngineBusy):
            await sums.facts("a", None, None, None)
        assert len(running) == MOST_AT_ONCE
        go.set()
        answers = await asyncio.wait_for(asyncio.gather(*asked), 30)
        assert {answer["to"] for answer in answers} == {"9999-12-31"}
        await sums.facts("a", None, None, None)

    asyncio.run(test())
