"""`faasmoe kernels`."""

from __future__ import annotations

import json
import os
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable


def kernels(as_json: Json = False) -> None:
    """Show which instruction sets there are kernels for, and which of them this machine computes with."""
    from faasmoe.experts.kernels.cpu import Cpu
    from faasmoe.experts.kernels.library import VARIABLE, Library, known

    cpu, wanted = Cpu.here(), os.environ.get(VARIABLE)
    chosen = Library.chosen().instruction_set
    facts: dict[str, Any] = {
        "architecture": cpu.architecture,
        "cpu": cpu.model,
        "instruction_sets": [
            {"name": each.name, "built": each.built, "lacking": each.lacking} for each in known(cpu)
        ],
        "chosen": chosen,
        "reason": f"{VARIABLE}={wanted}" if wanted else "the best that runs here",
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = Console()
    console.print(f"{cpu.architecture}, {cpu.model}", highlight=False)
    console.print(WholeTable(_table(facts)))
    console.print(f"{chosen} is used: {facts['reason']}", highlight=False)


def _table(facts: dict[str, Any]) -> Table:
    table = Table("instruction set", "built", "the CPU lacks", box=None, pad_edge=False)
    for each in facts["instruction_sets"]:
        style = "bold" if each["name"] == facts["chosen"] else None
        lacking = ", ".join(each["lacking"]) or "nothing"
        table.add_row(each["name"], "yes" if each["built"] else "no", lacking, style=style)
    return table
