"""What a server says of itself: whether it takes requests, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from faasmoe.fleet.replica import State

Status = Literal["starting", "ok", "degraded", "stopped"]


@dataclass(frozen=True)
class Parts:
    """What a server that serves is made of. None of these blocks, and their texts name no files and no tenants."""

    orchestrators: Callable[[], State]
    functions: Callable[[], Literal["starting", "ok"]]  # the platform: whether functions can be started
    ledger: Callable[[], str | None]  # why nothing is written to it now
    open: Callable[[], bool]  # whether no key is needed


@dataclass
class Health:
    """Begins with `starting`; `parts` are there once the server serves."""

    stage: str = "the server is starting"  # what is done before it serves
    parts: Parts | None = None
    stopping: str | None = field(default=None)  # why it takes no more requests

    @property
    def status(self) -> Status:
        """`degraded`: requests are taken, and something has to be mended."""
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
        """Whether requests are taken."""
        return self.status in ("ok", "degraded")

    def report(self) -> dict[str, Any]:
        """For JSON: `status`, `open` once it is known, and the `reasons` of a status other than ok."""
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
