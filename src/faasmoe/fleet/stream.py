"""The pieces of one request on their way from an orchestrator to whoever asked."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Self

from faasmoe.errors import EngineStopped, FaasmoeError, ServingError
from faasmoe.protocol.request import Piece

MOST_UNREAD = 1024  # pieces that may wait for a reader


class PieceStream:
    """An async iterator over what comes into `inbox`. Closed, or dropped by everybody, it calls `release`, once."""

    def __init__(self, inbox: Inbox, release: Callable[[], None]) -> None:
        self._inbox = inbox
        self._release = weakref.finalize(self, release)
        self._release.atexit = False
        self._ended = False

    @property
    def final(self) -> asyncio.Future[Piece | None]:
        """The last piece as soon as it has come, even if the stream was closed long before; with it, what was used.

        None if it will never come, because the orchestrator is lost or did not take the request.
        """
        return self._inbox.final

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Raises `EngineStopped` if the orchestrator fails, `ServingError` if pieces were not read for too long."""
        if self._ended:
            raise StopAsyncIteration
        item = await self._inbox.get()
        if isinstance(item, FaasmoeError) or item.last:
            await self.aclose()
        if isinstance(item, FaasmoeError):
            raise item
        if item.error:
            raise EngineStopped(item.error)
        return item

    async def aclose(self) -> None:
        """Want no more of it. May be called twice."""
        self._ended = True
        self._release()


class Inbox:
    """What has come of one request and was not read yet, up to `MOST_UNREAD` pieces."""

    def __init__(self) -> None:
        self.final: asyncio.Future[Piece | None] = asyncio.get_running_loop().create_future()
        self._items: asyncio.Queue[Piece | FaasmoeError] = asyncio.Queue()
        self._closed = False

    def put(self, piece: Piece) -> bool:
        """Add a piece. Returns False if too many wait: the stream ends with an error after those."""
        if piece.last:
            self.settle(piece)
        elif self._items.qsize() >= MOST_UNREAD:
            self.fail(ServingError(f"the client reads too slowly: {MOST_UNREAD} pieces of text wait for it"))
            return False
        if not self._closed:
            self._items.put_nowait(piece)
        return True

    def close(self) -> None:
        """Nobody reads what comes from now on, but for the last piece."""
        self._closed = True

    def settle(self, last: Piece | None) -> None:
        """Say what the last piece is, or None if there will be none. The first one stays."""
        if not self.final.done():
            self.final.set_result(last)

    def fail(self, error: FaasmoeError) -> None:
        """End the stream with an error, after what is there."""
        if not self._closed:
            self._closed = True
            self._items.put_nowait(error)

    async def get(self) -> Piece | FaasmoeError:
        """The next item, when it comes."""
        return await self._items.get()
