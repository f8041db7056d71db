"""Health of the server: its status, and the reasons for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from faasmoe.fleet.replica import State

Status = Literal["starting", "ok", "degraded", "stopped"]


@dataclass(frozen=True)
class Parts:
    """The parts of a server that decide its health. No call blocks, and no text names files or tenants."""

    orchestrators: Callable[[], State]
    functions: Callable[[], Literal["starting", "ok"]]  # `ok`: the platform can start functions
    ledger: Callable[[], str | None]  # why it cannot be written now; None if it can
    open: Callable[[], bool]  # requests need no key


@dataclass
class Health:
    """The health of one server, which begins with `starting`; `parts` are set when it serves."""

    stage: str = "the server is starting"  # of the start, in words
    parts: Parts | None = None
    stopping: str | None = field(default=None)  # why it takes no more requests; None while it does

    @property
    def status(self) -> Status:
        """The status; `degraded` if requests are taken but a part has failed."""
        if self.stopping is not None:
            return "stopped"
        if self.parts is None:
            return "starting"
        orchestrators = self.parts.orchestrators()
        if orchestrators != "ok":
            return orchestrators
        if self.parts.functions() != "ok":
            return "starting"
        return "ok" if self.parts.ledger() is None else "degraded"

    @property
    def ready(self) -> bool:
        """Whether the server takes requests."""
        return self.status in ("ok", "degraded")

    def report(self) -> dict[str, Any]:
        """The report for JSON: `status`, the `reasons` of a status other than ok, and `open` once the server serves."""
        report: dict[str, Any] = {"status": self.status, "reasons": self._reasons()}
        return report if self.parts is None else {**report, "open": self.parts.open()}

    def _reasons(self) -> list[str]:
        if self.stopping is not None:
            return [self.stopping]
        if self.parts is None:
            return [self.stage]
        reasons = []
        if self.parts.orchestrators() != "ok":
            reasons.append("no orchestrator runs; one is being started")
        if self.parts.functions() != "ok":
            reasons.append("the platform cannot start functions now; it is being started again")
        if (why := self.parts.ledger()) is not None:
            reasons.append(why)
        return reasons
