"""`faasmoe kernels`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from faasmoe.cli.kernels import cache
from faasmoe.cli.options import Json
from faasmoe.cli.tables import WholeTable
from faasmoe.experts.formats import conversions
from faasmoe.experts.kernels.calibration import BFLOAT16, ONEDNN, Calibration
from faasmoe.experts.kernels.choice import VARIABLE, Choice
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import InstructionSet, known, running

_UNMEASURED = "the best by the CPU's flags, nothing was measured"
_MEASURED = "the fastest, as was measured here"


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
    """Show which instruction sets there are kernels for, and which of them this machine computes with.

    A server measures them too, when it has had no request for a minute.
    """
    from faasmoe.cli.kernels.calibration import measure as measured

    found = measured() if measure else cache.remembered()
    cpu = Cpu.here()
    sets, used = known(cpu), _used(found)
    reason = (
        f"{VARIABLE}={os.environ[VARIABLE]}" if os.environ.get(VARIABLE) else _MEASURED if found else _UNMEASURED
    )
    if as_json:
        facts: dict[str, Any] = {
            "architecture": cpu.architecture,
            "cpu": cpu.model,
            "instruction_sets": [
                {"name": each.name, "built": each.built, "lacking": each.lacking} for each in sets
            ],
            "used": {format: asdict(choice) for format, choice in used.items()},
            "reason": reason,
            "calibration": asdict(found) if found else None,
        }
        typer.echo(json.dumps(facts))
        return
    console = Console(highlight=False)
    console.print(f"{cpu.architecture}, {cpu.model}")
    console.print(WholeTable(_sets(sets, {choice.instruction_set for choice in used.values()})))
    if found:
        console.print(f"\nmilliseconds of a product of rows with weights, measured in {found.seconds:.1f} s:")
        console.print(WholeTable(_times(found, [each.name for each in sets])))
    console.print("\n" + "\n".join(_told(used)) + f": {reason}")


def _used(found: Calibration | None) -> dict[str, Choice]:
    """The choice of other commands, by the format of a model's weights. Raises `UserError` if no kernels run here."""
    from faasmoe.experts.kernels.library import Library

    by_flags = Choice(Library.chosen().instruction_set, Choice.here().onednn_rows)
    names = running(Cpu.here())
    measured = None if os.environ.get(VARIABLE) else found
    return {
        format: measured.choice(format, names) if measured else by_flags for format in (BFLOAT16, *conversions())
    }


def _told(used: dict[str, Choice]) -> list[str]:
    """Lines that say what is used, and for which formats if it is not the same for all."""
    formats: dict[str, list[str]] = {}
    for format, choice in used.items():
        formats.setdefault(choice.instruction_set, []).append(format)
    rows = used[BFLOAT16].onednn_rows
    return [
        *(
            [f"{ONEDNN} is used for {rows} rows and more with weights of the dense part in {BFLOAT16}"]
            if rows
            else []
        ),
        *(
            f"{name} is used" + (f" for {', '.join(its)}" if len(formats) > 1 else "")
            for name, its in formats.items()
        ),
    ]


def _sets(sets: list[InstructionSet], used: set[str]) -> Table:
    table = Table("instruction set", "built", "the CPU lacks", box=None, pad_edge=False)
    for each in sets:
        lacking = ", ".join(each.lacking) or "nothing"
        table.add_row(
            each.name, "yes" if each.built else "no", lacking, style="bold" if each.name in used else None
        )
    return table


def _times(found: Calibration, names: list[str]) -> Table:
    columns = [name for name in (*names, ONEDNN) if any(name in each.milliseconds for each in found.measurements)]
    table = Table("weights", "rows", "from", *columns, box=None, pad_edge=False)
    for column in (table.columns[1], *table.columns[3:]):
        column.justify = "right"
    for each in found.measurements:
        cells = [f"{each.milliseconds[name]:.3g}" if name in each.milliseconds else "" for name in columns]
        table.add_row(each.format, str(each.rows), each.source, *cells)
    return table
