"""One process of a replica, from its fork to its end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

from faasmoe.errors import FaasmoeError, MessageError, ProcessLost
from faasmoe.fleet.link import Link
from faasmoe.protocol.errors import error_of
from faasmoe.protocol.messages import Failed, Ready, Starting

log = logging.getLogger(__name__)

_MOST_STARTING = 60  # heartbeats, one a second, until it takes requests; a large model may be read from disk
_HANG_UP_SECONDS = 0.5  # in which a process ends after its socket was closed
_KILL_SECONDS = 1.0  # in which a process ends after it was killed


class ReplicaProcess:
    """An orchestrator process. `ended` gets its exit status, or minus the signal that killed it.

    Of one on another machine it gets why the connection to it has ended.
    """

    def __init__(
        self,
        link: Link,
        ended: asyncio.Future[int] | asyncio.Future[str],
        kill: Callable[[], None],
        leaves: Callable[[], bool] = lambda: False,
    ) -> None:
        """`leaves` tells whether another one had better take its place, elsewhere."""
        self.link = link
        self.leaves = leaves
        self._ended = ended
        self._kill = kill

    async def ready(self) -> None:
        """Wait until it takes requests. Raises the error that keeps it from starting."""
        for _ in range(_MOST_STARTING):
            message = await self.link.receive()
            if not isinstance(message, Starting):
                break
        else:
            raise ProcessLost(f"the orchestrator did not start within {_MOST_STARTING} s")
        if isinstance(message, Failed):
            raise error_of(message.error)
        if not isinstance(message, Ready):
            raise MessageError(f"{type(message).__name__} is not expected from an orchestrator that starts")

    async def serve(self) -> str:
        """Receive its messages until it is lost. Returns the reason."""
        try:
            await self.link.run()
        except ProcessLost as error:
            return str(error)
        except FaasmoeError as error:
            log.error("an orchestrator is given up: %s", error)
        except Exception:  # a defect in the handling of a message; without its reader the orchestrator is lost
            log.exception("messages of an orchestrator cannot be handled")
        return "the orchestrator is not understood"

    async def end(self) -> str:
        """Close the link and make sure that the process is gone. Returns how it ended. Takes 1.5 s at most."""
        await self.link.close()
        if not await self._gone(_HANG_UP_SECONDS):
            self._kill()
            if not await self._gone(_KILL_SECONDS):
                return "killed, and not gone yet"
        code = self._ended.result()
        if isinstance(code, str):
            return code
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"status {code}"

    def abandon(self) -> None:
        """Kill it, and close the link. Does not wait."""
        self.link.abort()
        self._kill()

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Have the loop call `tell` when the process has ended."""
        self._ended.add_done_callback(lambda _: tell())

    async def _gone(self, seconds: float) -> bool:
        await asyncio.wait([self._ended], timeout=seconds)
        return self._ended.done()
