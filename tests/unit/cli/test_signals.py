from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from faasmoe.cli.signals import ENDING, EndedBySignals, unwind

both = pytest.mark.parametrize("number", ENDING)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@both
def test_what_runs_is_unwound_even_if_signals_were_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    unwind()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(number)
    assert caught.value.code == 128 + number


@both
def test_a_coroutine_is_cancelled_once_and_cleans_up_undisturbed(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    done = []

    async def main() -> None:
        try:
            signal.raise_signal(number)
            done.append("nothing was raised")
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done.append("cleaned up")

    with pytest.raises(SystemExit) as caught:
        EndedBySignals().run(main())
    assert caught.value.code == 128 + number
    assert done == ["nothing was raised", "cleaned up"]


def test_a_coroutine_may_end_in_a_way_of_its_own() -> None:
    ended = EndedBySignals()
    heard: list[int] = []

    async def main() -> None:
        told = asyncio.Event()

        def end(number: int) -> None:
            heard.append(number)
            told.set()

        with ended.by(end):
            signal.raise_signal(signal.SIGINT)
            await told.wait()
            told.clear()
            signal.raise_signal(signal.SIGTERM)
            await told.wait()
        signal.raise_signal(signal.SIGINT)  # it is ending
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    ended.run(main())
    assert heard == [signal.SIGINT, signal.SIGTERM]


def test_a_cancellation_that_no_signal_caused_is_raised_as_it_is() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        EndedBySignals().run(main())
