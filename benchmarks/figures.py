"""What a benchmark found: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

Figures = dict[str, float]


def machine() -> dict[str, object]:
    """What figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": cpu, "cores": os.cpu_count(), "capability": torch.backends.cpu.get_cpu_capability(),
            "kernel": platform.release(), "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip


def report(
    figures: Figures, limits: Mapping[str, float], file: str | None, at_least: Collection[str] = ()
) -> None:
    """Print figures beside their limits, which are the most they may be but for those in `at_least`."""
    where = machine()
    title = f"{where['cpu']}, {where['capability']}, {where['cores']} cores"
    table = Table("figure", "measured", "limit", "", title=title)
    for name, value in figures.items():
        limit = limits.get(name)
        if limit is None:
            table.add_row(name, _shown(value), "", "")
        else:
            met = value >= limit if name in at_least else value <= limit
            sign = "≥" if name in at_least else "≤"
            verdict = "[green]met[/]" if met else "[red]missed[/]"
            table.add_row(name, _shown(value), f"{sign} {limit}", verdict)
    Console().print(table)
    if file:
        Path(file).write_text(json.dumps({"machine": where, "limits": dict(limits), **figures}, indent=1))


def _shown(value: float) -> str:
    return f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
