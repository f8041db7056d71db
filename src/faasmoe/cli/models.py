"""`faasmoe models ...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from faasmoe.cli.options import Json
from faasmoe.cli.progress import writing

app = typer.Typer(help="Make checkpoints to try things with.", no_args_is_help=True)


@app.callback()
def callback() -> None:
    """Make checkpoints to try things with."""


@app.command("make")
def make(
    name: Annotated[
        str, typer.Argument(help="A published geometry, e.g. qwen1.5-moe-a2.7b; a wrong one lists all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    layers: Annotated[int | None, typer.Option(help="Layers; default: as published.", show_default=False)] = None,
    vocab: Annotated[
        int | None, typer.Option(help="Vocabulary; default: as published.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a checkpoint of random bfloat16 weights in a published geometry.

    Its text is noise. It serves benchmarks and tests, which depend on sizes and not on what is said.
    """
    from faasmoe.model.synthesis import Synthesis

    synthesis = Synthesis(name, layers, vocab, seed)
    with writing(str(out), synthesis.nbytes) as advance:
        synthesis.write(out, advance)
    facts = {"folder": str(out), "parameters": synthesis.nbytes // 2, "bytes": synthesis.nbytes}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{out}: {synthesis.nbytes // 2 / 1e9:.2f} B parameters, {synthesis.nbytes / 1e9:.2f} GB")
