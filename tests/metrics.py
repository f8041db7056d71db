"""A page of metrics with every series, readers of such pages, and the table of docs/metrics.md.

`python -m tests.metrics` writes the table.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from faasmoe.api.metrics.collectors import ENGINE
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.errors import LimitExceeded
from faasmoe.fleet.starts import Starts
from faasmoe.fleet.stream import Inbox, PieceStream
from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus, PoolTotals
from faasmoe.protocol.request import GenerationRequest, Piece, ResourceUsage
from faasmoe.protocol.stats import EngineStats
from tests.tenancies import PlayedTenancy

DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
BEGIN, END = "<!-- written by python -m tests.metrics -->", "<!-- end -->"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class PlayedFleet:
    """Three orchestrators, two of which were started again."""

    running = 3

    def __init__(self, figures: EngineStats) -> None:
        self._figures = figures
        self.starts = Starts()
        for again in (False, True, True):
            self.starts.count(0.2, again)

    async def stats(self) -> EngineStats:
        return self._figures


def played(figures: EngineStats, pool: Callable[[], PoolStatus]) -> Metrics:
    return Metrics(PlayedFleet(figures), pool, PlayedTenancy())  # type: ignore[arg-type]


def everything(tenants: int = 2) -> Metrics:
    """Metrics of a server of which everything is known, and that many tenants have used."""
    figures = EngineStats(
        running=2,
        waiting=1,
        invocations=9,
        cold_starts=5,
        phases={"forward": 1.5},
        engine=dict.fromkeys(ENGINE, 3.0),
    )
    for steps in (figures.step_tokens, figures.step_seconds, figures.step_sequences, figures.step_functions):
        steps.observe(3)
    called = FunctionStatus(
        "f",
        "idle",
        (Instance("1", "n"), Instance("2", "n")),
        invocations=9,
        cold_starts=2,
        p50=0.001,
        p99=0.1,
        memory=60,
    )
    pool = PoolStatus(
        functions=[called, replace(called, name="g")], memory_budget=100, memory_used=60, waiting=3,
        latency=[(0.1, 4), (1.0, 5)], cold_start_phases={"fork": (2, 0.1)}, totals=PoolTotals(8.0, 2.0, 0.5),
    )  # fmt: skip
    made = played(figures, lambda: pool)
    error = LimitExceeded("too many", code="rate_limit_exceeded", limit="requests", retry_after=1.0)
    for name in (f"tenant-{number}" for number in range(tenants)):
        made.turned_away(error, name)
        with made.request(GenerationRequest("id", (7, 7), tenant=name), 0.0) as watch:
            watch.piece(Piece("a", 1, cached_tokens=1, queue_seconds=0.3), 1)
            watch.piece(Piece("b", 4, "stop"), 3)
    asyncio.run(_use(made, tenants))
    return made


async def _use(made: Metrics, tenants: int) -> None:
    requests = [GenerationRequest("id", (7, 7), tenant=f"tenant-{number}") for number in range(tenants)]
    inboxes = [Inbox() for _ in requests]
    made.uses(requests, [PieceStream(inbox, lambda: None) for inbox in inboxes])
    for inbox in inboxes:
        inbox.settle(Piece("", 4, "stop", used=ResourceUsage(1.5, 2, 3, 0.5, 4)))
    await asyncio.sleep(0)


def text(of: Metrics, accept: str = "") -> str:
    return asyncio.run(of.page(accept))[0].decode()


def families(page: str) -> list[Metric]:
    """What the text says, in whichever of both formats. Raises `ValueError` if it is none."""
    parse = openmetrics_families if page.endswith("# EOF\n") else text_string_to_metric_families
    return list(parse(page))


def promtool(page: str) -> str | None:
    """What Prometheus' own check has to say of a page; None where it is not installed."""
    if not (command := shutil.which("promtool")):
        return None
    check = [command, "check", "metrics"]
    done = subprocess.run(check, check=False, input=page, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


NO_PROMTOOL = "promtool (Debian: prometheus) is missing"


def reference() -> str:
    """The table of docs/metrics.md: every series with its type, its labels and its help."""
    lines = ["| series | type | labels | help |", "| --- | --- | --- | --- |"]
    for one in families(text(everything())):
        name = f"{one.name}_total" if one.type == "counter" else one.name
        labels = sorted({label for sample in one.samples for label in sample.labels} - {"le"})
        lines.append(
            f"| `{name}` | {one.type} | {', '.join(f'`{each}`' for each in labels)} | {one.documentation} |"
        )
    return "\n".join(lines)


def write_reference() -> None:
    """Bring the table of docs/metrics.md up to date."""
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{reference()}\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    write_reference()
