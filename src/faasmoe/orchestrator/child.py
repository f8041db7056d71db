"""The gateway's hold on one orchestrator process."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from faasmoe.errors import FaasmoeError, MessageError
from faasmoe.orchestrator.link import Link
from faasmoe.orchestrator.messages import Failed, Ready, Starting, error_of

_CLOSE_SECONDS = 5.0


class Child:
    """An orchestrator that was forked. `ended` gets its exit status, or minus the signal that killed it."""

    def __init__(self, link: Link, ended: asyncio.Future[int], kill: Callable[[], None]) -> None:
        self.link = link
        self._ended = ended
        self._kill = kill

    async def ready(self) -> None:
        """Until it takes requests. Raises what it cannot start for."""
        while isinstance(message := await self.link.receive(), Starting):
            pass
        if isinstance(message, Failed):
            raise error_of(message.error)
        if not isinstance(message, Ready):
            raise MessageError(f"{type(message).__name__} is not expected from an orchestrator that starts")

    async def serve(self) -> str:
        """Until it is lost. Returns why."""
        try:
            await self.link.run()
        except FaasmoeError as error:
            return str(error)

    async def end(self) -> str:
        """Hang up, and make sure that the process is gone. Returns how it ended."""
        await self.link.close()
        if not await self._gone():
            self._kill()
            if not await self._gone():
                return f"not gone after {2 * _CLOSE_SECONDS:g} s"
        code = self._ended.result()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"status {code}"

    async def _gone(self) -> bool:
        await asyncio.wait([self._ended], timeout=_CLOSE_SECONDS)
        return self._ended.done()
