"""Context managers that are left in time, whatever hangs or fails in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_SECOND_TRY = 1.0  # seconds to close after `otherwise`


@asynccontextmanager
async def in_time(what: str, seconds: float, manager: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """`manager`, cancelled if leaving it takes longer than `seconds`. `what` is its name in the log, which gets errors
    of leaving: what else there is has to be left too."""
    value = await manager.__aenter__()
    try:
        yield value
    finally:
        try:
            async with asyncio.timeout(seconds):
                await manager.__aexit__(None, None, None)
        except TimeoutError:
            _complain(what, seconds)
        except Exception as error:
            log.error("not closed in order: %s", what, exc_info=error)


@asynccontextmanager
async def on_thread(
    what: str,
    seconds: float,
    manager: AbstractContextManager[T],
    otherwise: Callable[[], None] | None = None,
) -> AsyncIterator[T]:
    """`manager`, entered and left on a thread, so that the loop goes on. What is not left within `seconds` is left to
    itself, after `otherwise` was called to make it possible. Errors are as with `in_time`."""
    entering = asyncio.create_task(asyncio.to_thread(manager.__enter__))
    try:
        value = await asyncio.shield(entering)
    except asyncio.CancelledError:  # the thread goes on
        await asyncio.wait([entering])
        if not entering.cancelled() and entering.exception() is None:
            await _leave(what, seconds, manager, otherwise)
        raise
    try:
        yield value
    finally:
        await _leave(what, seconds, manager, otherwise)


async def _leave(
    what: str, seconds: float, manager: AbstractContextManager[object], otherwise: Callable[[], None] | None
) -> None:
    leaving = asyncio.create_task(asyncio.to_thread(manager.__exit__, None, None, None))
    await asyncio.wait([leaving], timeout=seconds)
    if not leaving.done() and otherwise is not None:
        _complain(what, seconds)
        otherwise()
        await asyncio.wait([leaving], timeout=_SECOND_TRY)
    if not leaving.done():
        _complain(what, seconds)
    elif error := leaving.exception():
        log.error("not closed in order: %s", what, exc_info=error)


def _complain(what: str, seconds: float) -> None:
    log.error("not closed in time: %s (%g s)", what, seconds)
