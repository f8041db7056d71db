"""The command and its subcommands. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import logging
import os
import sys

import typer
from rich.console import Console

from faasmoe import __version__
from faasmoe.cli import functions, generate, inspect, models
from faasmoe.cli.cluster import node, nodes
from faasmoe.cli.evaluation import evaluate
from faasmoe.cli.kernels import kernels
from faasmoe.cli.planner import plan
from faasmoe.cli.platforms import PlatformCommand
from faasmoe.cli.server import serve, signals
from faasmoe.cli.tenancy import database, keys, tenants, usage
from faasmoe.errors import FaasmoeError, UserError

app = typer.Typer(
    name="faasmoe",
    help="Serve Mixture-of-Experts language models with the routed experts as serverless functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its boxes leave 22 of 80 columns for texts, and cut names of options
)
app.command("serve", cls=PlatformCommand)(serve.serve)
app.command("generate", cls=PlatformCommand)(generate.generate)
app.command("inspect")(inspect.inspect)
app.command("functions", cls=PlatformCommand)(functions.functions)
app.command("node", cls=PlatformCommand)(node.node)
app.command("plan")(plan.plan)
app.command("kernels")(kernels.kernels)
app.command("usage")(usage.usage)
app.add_typer(nodes.app, name="nodes")
app.add_typer(models.app, name="models")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(tenants.app, name="tenants")
app.add_typer(keys.app, name="keys")
app.add_typer(database.app, name="database")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"faasmoe {__version__}")
        raise typer.Exit


@app.callback()
def callback(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """Serve Mixture-of-Experts language models with the routed experts as serverless functions."""


def main() -> None:
    """Run the command. What the user can mend ends in one line and status 2."""
    # Threads of the dense part that spin while they wait would take the cores that instances need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signals.unwind()
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        _refuse(error)
    except UserError as error:
        _fail(str(error), 2)
    except FaasmoeError as error:
        _fail(str(error), 1)


def _refuse(error: typer.TyperException) -> None:
    text = refusal(error)
    if "\n" in text:  # the help of a command that was called without any argument
        typer.echo(text, err=True)
        sys.exit(error.exit_code)
    _fail(text, error.exit_code)


def refusal(error: typer.TyperException) -> str:
    """The one-line error for a command line; the option and its value come first."""
    if isinstance(error, typer.BadParameter) and error.param is not None and error.message:
        return f"{error.param.opts[0]} {error.message.removeprefix('Value error, ')}"
    return error.format_message()


def _fail(text: str, status: int) -> None:
    from faasmoe.util import logs

    if logs.are_json():
        logging.getLogger("faasmoe.cli").error(text)
        sys.exit(status)
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_plain(text)}", highlight=False)
    sys.exit(status)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
