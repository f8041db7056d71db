"""`faasmoe kernels`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.kernels import choice
from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import VARIABLE, known

Facts = dict[str, Any]


def kernels(
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Measure for two seconds which instruction set is the fastest here, and use that from now on.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show which instruction sets there are kernels for, and which of them this machine computes with."""
    cpu, named = Cpu.here(), choice.named()
    measured = _measured() if measure else {}
    chosen, reason = _used(named)
    facts: Facts = {
        "architecture": cpu.architecture,
        "cpu": cpu.model,
        "instruction_sets": [
            {"name": each.name, "built": each.built, "lacking": each.lacking} for each in known(cpu)
        ],
        "chosen": chosen,
        "reason": reason,
        **measured,
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    console = Console()
    console.print(f"{cpu.architecture}, {cpu.model}", highlight=False)
    console.print(WholeTable(_table(facts)))
    if measured:
        console.print("\nmilliseconds for a product of rows with weights of a format:", highlight=False)
        console.print(WholeTable(_times(facts)))
        console.print()
    console.print(f"{chosen} is used: {reason}", highlight=False)


def _measured() -> Facts:
    """Measure, and keep the choice."""
    from faasmoe.experts.kernels.calibration import PRODUCTS, calibrate
    from faasmoe.experts.kernels.library import instruction_sets

    found = calibrate(instruction_sets())
    choice.remember(found.chosen)
    products = list(map(str, PRODUCTS))
    return {
        "milliseconds": {name: dict(zip(products, its, strict=True)) for name, its in found.milliseconds.items()},
        "fastest": found.chosen,
    }


def _used(named: str | None) -> tuple[str, str]:
    """The instruction set that other commands compute with, and why. `named`: the one that the user has named."""
    from faasmoe.experts.kernels.library import Library

    chosen, fastest = Library.chosen().instruction_set, choice.remembered()
    if named:
        return chosen, f"{VARIABLE}={named}"
    if fastest:
        return fastest, "the fastest, as was measured here"
    return chosen, "the best by the CPU's flags, and nothing was measured"


def _table(facts: Facts) -> Table:
    table = Table("instruction set", "built", "the CPU lacks", box=None, pad_edge=False)
    for each in facts["instruction_sets"]:
        style = "bold" if each["name"] == facts["chosen"] else None
        lacking = ", ".join(each["lacking"]) or "nothing"
        table.add_row(each["name"], "yes" if each["built"] else "no", lacking, style=style)
    return table


def _times(facts: Facts) -> Table:
    products = next(iter(facts["milliseconds"].values()))
    table = Table("", *products, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, its in facts["milliseconds"].items():
        style = "bold" if name == facts["fastest"] else None
        table.add_row(name, *(f"{each:.2f}" for each in its.values()), style=style)
    return table
