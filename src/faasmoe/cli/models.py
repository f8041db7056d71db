"""`faasmoe models ...`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from faasmoe.cli.numeric import MOST_COUNT, MOST_SEED, whole
from faasmoe.cli.options import Dtype, Json, Model
from faasmoe.cli.progress import writing
from faasmoe.errors import OptionError
from faasmoe.model.synthesis.geometries import LEAST_VOCAB, MOST_VOCAB, PUBLISHED

app = typer.Typer(
    help="Make checkpoints to try things with, and record what models do.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def callback() -> None:
    """Make checkpoints to try things with, and record what models do."""


@app.command("make")
def make(
    name: Annotated[
        str, typer.Argument(help="A published geometry, e.g. qwen1.5-moe-a2.7b; a wrong one lists all.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    layers: Annotated[
        int | None, whole(1, MOST_COUNT, help="Layers; default: as published.", show_default=False)
    ] = None,
    vocab: Annotated[
        int | None,
        whole(LEAST_VOCAB, MOST_VOCAB, help="Vocabulary; default: as published.", show_default=False),
    ] = None,
    seed: Annotated[int, whole(-MOST_SEED, MOST_SEED, help="The same seed gives the same weights.")] = 0,
    published_format: Annotated[
        bool,
        typer.Option(
            "--published-format",
            help="Write weights in the format in which the model is published: "
            f"{', '.join(f'{name} in {format}' for name, format in PUBLISHED.items())}, others in bfloat16.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a checkpoint of random weights in a published geometry, in bfloat16 or its published format.

    Its text is noise. It serves benchmarks and tests, which depend on sizes and not on what is said.
    """
    from faasmoe.model.adapter.light_import import import_transformers
    from faasmoe.model.synthesis.geometries import sizes_of
    from faasmoe.model.synthesis.new_folder import check_new

    sizes_of(name, layers, vocab)  # before torch, which takes seconds to import
    check_new(out)
    import_transformers()
    from faasmoe.model.synthesis.synthesis import Synthesis

    synthesis = Synthesis(name, layers, vocab, seed, published=published_format)
    with writing(str(out), synthesis.nbytes) as advance:
        synthesis.write(out, advance)
    facts = {"folder": str(out), "parameters": synthesis.parameters, "bytes": synthesis.nbytes}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{out}: {synthesis.parameters / 1e9:.2f} B parameters, {synthesis.nbytes / 1e9:.2f} GB")


@app.command("record")
def record(
    text: Annotated[
        Path, typer.Option(help="Prompts, with an empty line between each.", exists=True, dir_okay=False)
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    model: Model = None,
    answer_tokens: Annotated[int, whole(1, MOST_COUNT, help="Tokens that the model adds to each text.")] = 32,
    dtype: Dtype = "auto",
    as_json: Json = False,
) -> None:
    """Record which experts a model picks while it answers, for `faasmoe plan --routing`.

    The file holds numbers of experts and nothing of the text.
    """
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.model.config.facts import ConfigFacts

    try:
        prompts = [part.strip() for part in text.read_text().split("\n\n") if part.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--text {text}: cannot be read: {error}") from error
    source = resolve(model)
    ConfigFacts.read(source.folder).check(max_tokens=answer_tokens, option="--answer-tokens")
    from faasmoe.model.adapter.light_import import import_transformers

    import_transformers()
    from faasmoe.planner.recording import record as run

    columns = (TextColumn("answering"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(prompts))
        activations = run(source, prompts, answer_tokens, dtype, lambda: progress.advance(task))
    try:
        activations.save(out)
    except OSError as error:
        raise OptionError(f"--out {out}: cannot be written: {error}") from error
    facts = {"file": str(out), "tokens": len(activations.layers[0]), "layers": len(activations.layers)}
    typer.echo(json.dumps(facts) if as_json else "{file}: {tokens} tokens, {layers} layers".format(**facts))
