"""How the gateway talks to an orchestrator: one async stream of pieces a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from faasmoe.errors import EngineStopped
from faasmoe.orchestrator.engine import Engine
from faasmoe.orchestrator.request import GenerationRequest, Piece


class OrchestratorClient:
    """Bridges an asyncio loop and the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def alive(self) -> bool:
        """Whether the orchestrator takes requests."""
        return self._engine.alive

    @property
    def max_model_len(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._engine.max_model_len

    def load(self) -> tuple[int, int]:
        """Requests running and waiting."""
        return self._engine.load()

    def cancel(self, request_id: str) -> None:
        """Drop a request. Unknown ids are fine."""
        self._engine.cancel(request_id)

    def submit(self, request: GenerationRequest) -> AsyncGenerator[Piece]:
        """Start a request now; iterate for its pieces. Closing the iterator early cancels the request.

        Raises `RequestError`, `EngineBusy` or `EngineStopped` at once, and `EngineStopped` from the
        iterator if the orchestrator fails under way.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[Piece] = asyncio.Queue()

        def listener(piece: Piece) -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody listens any more
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        self._engine.submit(request, listener)
        return self._pieces(request.id, pieces)

    async def _pieces(self, request_id: str, pieces: asyncio.Queue[Piece]) -> AsyncGenerator[Piece]:
        try:
            while True:
                piece = await pieces.get()
                if piece.error:
                    raise EngineStopped(piece.error)
                yield piece
                if piece.last:
                    return
        finally:
            self._engine.cancel(request_id)
