from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from faasmoe.cli.server.last_resort import LastResort
from faasmoe.cli.server.signals import ENDING, EndedBySignals, unwind

each = pytest.mark.parametrize("number", ENDING)


def ended_by_signals() -> EndedBySignals:
    return EndedBySignals(LastResort(ENDING))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_runs_is_unwound_even_if_signals_were_ignored(number: signal.Signals) -> None:
    signal.signal(number, signal.SIG_IGN)
    unwind()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(number)
    assert caught.value.code == 128 + number


def test_a_terminal_that_closes_unwinds_unless_nohup_was_asked_for() -> None:
    unwind()
    with pytest.raises(SystemExit) as caught:
        signal.raise_signal(signal.SIGHUP)
    assert caught.value.code == 128 + signal.SIGHUP
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    unwind()
    signal.raise_signal(signal.SIGHUP)


def test_a_second_signal_does_not_disturb_the_cleaning_up() -> None:
    unwind()
    cleaned = False
    with pytest.raises(SystemExit) as caught:  # noqa: PT012 - what it unwinds is what is tested
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned = True
    assert cleaned
    assert caught.value.code == 128 + signal.SIGINT


@each
def test_a_coroutine_is_cancelled_once_and_cleans_up_undisturbed(number: signal.Signals) -> None:
    done = []
    ended = ended_by_signals()

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
        ended.run(main())
    assert caught.value.code == ended.status == 128 + number
    assert done == ["nothing was raised", "cleaned up"]
    for later in ENDING:  # while the interpreter ends
        signal.raise_signal(later)


def test_a_coroutine_may_end_in_a_way_of_its_own_and_gets_its_grace_once() -> None:
    resort = LastResort(ENDING)
    ended = EndedBySignals(resort)
    heard = 0

    async def main() -> None:
        told = asyncio.Event()

        def end() -> None:
            nonlocal heard
            heard += 1
            told.set()

        with ended.by(end, 30.0):
            signal.raise_signal(signal.SIGINT)
            await told.wait()
            told.clear()
            signal.raise_signal(signal.SIGTERM)
            await told.wait()
        signal.raise_signal(signal.SIGINT)  # it is ending
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    ended.run(main())
    assert heard == 2
    assert resort.grace == 30.0


def test_a_cancellation_that_no_signal_caused_is_raised_as_it_is() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        ended_by_signals().run(main())
