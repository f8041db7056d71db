"""The embedded platform's client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from faasmoe.errors import PlatformError
from faasmoe.platforms.base import (
    Call,
    Capabilities,
    FunctionSpec,
    PoolStatus,
    Replies,
    State,
)
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.client.control import ASK_SECONDS, Activator, Control
from faasmoe.platforms.local.client.fanout import Fanout
from faasmoe.platforms.local.daemon import hibernation
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.protocol import messages
from faasmoe.platforms.local.protocol.messages import NAME
from faasmoe.platforms.local.protocol.wire import raise_descriptor_limit
from faasmoe.platforms.local.supervisor.health import PoolHealth
from faasmoe.platforms.local.supervisor.supervisor import Supervisor
from faasmoe.util.closeable import Closeable
from faasmoe.util.machine import cores

_PREWARM_SECONDS = 60.0


class LocalPlatform(Closeable):
    """Functions as processes of this machine. Implements `platforms.base.Platform`.

    With `options` it starts a pool of its own and ends it in `close`. With `folder` it is one of the clients of
    the pool that another process started there.
    """

    def __init__(self, options: LocalOptions | None = None, *, folder: Path | None = None) -> None:
        """Raises `PlatformError` if the daemon does not start or does not answer."""
        raise_descriptor_limit()  # each instance that is called takes one
        self.capabilities = Capabilities(shared_memory=True, parallelism=cores())
        self._supervisor = Supervisor(options or LocalOptions()) if folder is None else None
        self.folder = self._supervisor.folder if self._supervisor else Path(str(folder))
        self._control = Control(self.folder)
        self._fanout = Fanout(Activator(self.folder))

    @property
    def address(self) -> str:
        """See `Platform.address`: the run folder."""
        return str(self.folder)

    def deploy(self, specs: Sequence[FunctionSpec]) -> None:
        """See `Platform.deploy`."""
        self._control.ask(messages.Deploy(tuple(specs)), messages.Completed)

    def remove(self, names: Sequence[str]) -> None:
        """See `Platform.remove`."""
        self._control.ask(messages.Remove(tuple(names)), messages.Completed)

    def stop(self, names: Sequence[str]) -> None:
        """See `Platform.stop`."""
        self._control.ask(messages.Stop(tuple(names)), messages.Completed)

    def check_fits(self, names: Sequence[str]) -> None:
        """See `Platform.check_fits`."""
        self._control.ask(messages.Fits(tuple(names), ASK_SECONDS), messages.Completed)

    def invoke_many(
        self,
        calls: Sequence[Call],
        deadline: float,
        shared: Buffer | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Replies:
        """See `Platform.invoke_many`."""
        return self._fanout.run(calls, deadline, shared, meanwhile)

    def prewarm(self, names: Sequence[str]) -> None:
        """See `Platform.prewarm`."""
        request = messages.Prewarm(tuple(names), _PREWARM_SECONDS)
        self._control.ask(request, messages.Completed, _PREWARM_SECONDS)

    def status(self) -> PoolStatus:
        """See `Platform.status`. Asking does not wake a daemon that rests."""
        rest = hibernation.status(self.folder)
        return rest or self._control.ask(messages.AskStatus(), messages.PoolReport).pool

    @property
    def state(self) -> State:
        """See `Platform.state`."""
        return self._health.state

    @property
    def why(self) -> str:
        """The reason why `state` is not `ok`; empty if it is."""
        return self._health.why

    @property
    def _health(self) -> PoolHealth:
        if self._supervisor is None:
            raise PlatformError(NAME, "(all)", "only the owner of a pool knows its state")
        return self._supervisor.health

    def close(self) -> None:
        """Stop what this object started. May be called twice."""
        self._fanout.close()
        self._control.close()
        if self._supervisor:
            self._supervisor.close()
