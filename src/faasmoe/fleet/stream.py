"""The pieces of one request, on their way from an orchestrator to the client."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Self

from faasmoe.errors import EngineStopped, FaasmoeError, ServingError
from faasmoe.protocol.request import Piece

MOST_UNREAD = 1024  # pieces that may wait for a reader


class PieceStream:
    """An async iterator over the pieces in `inbox`. It calls `release` once: when closed or collected."""

    def __init__(self, inbox: Inbox, release: Callable[[], None]) -> None:
        self._inbox = inbox
        self._release = weakref.finalize(self, release)
        self._release.atexit = False
        self._ended = False

    @property
    def final(self) -> asyncio.Future[Piece | None]:
        """Gets the last piece, which tells the request's usage, even if the stream was closed long before.

        None if there will be none, because the orchestrator is lost or did not take the request.
        """
        return self._inbox.final

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """Return the next piece. Raises `EngineStopped` if the orchestrator fails, `ServingError` if too many wait."""
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
        """Cancel the request, unless it has ended. May be called twice."""
        self._ended = True
        self._release()


class Inbox:
    """The pieces of one request that were received and not read yet, at most `MOST_UNREAD`."""

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
        """Keep no more pieces, but the last one."""
        self._closed = True

    def settle(self, last: Piece | None) -> None:
        """Set the last piece, or None if there will be none. Only the first call counts."""
        if not self.final.done():
            self.final.set_result(last)

    def fail(self, error: FaasmoeError) -> None:
        """End the stream with an error, after the pieces that wait."""
        if not self._closed:
            self._closed = True
            self._items.put_nowait(error)

    async def get(self) -> Piece | FaasmoeError:
        """Wait for the next item and return it."""
        return await self._items.get()
