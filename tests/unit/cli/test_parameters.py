from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from faasmoe.cli.numeric import whole
from faasmoe.cli.parameters import grouped

SEEN: list[object] = []


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, whole(1, 9, help="In metres.")]
    names: Annotated[list[str] | None, typer.Option("--name")] = None


@grouped
def build(*, first: int = 1, size: Size, last: bool = False) -> None:
    """Build a thing."""
    SEEN[:] = [first, size, last]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(build)
    return app


def test_fields_of_a_group_are_options_in_its_place(app: typer.Typer) -> None:
    help_ = CliRunner().invoke(app, ["--help"]).output
    assert "Build a thing." in help_
    places = [help_.index(text) for text in ("--first", "--width", "In metres.", "--name", "--last")]
    assert places == sorted(places)


def test_a_group_arrives_as_one_object(app: typer.Typer) -> None:
    assert CliRunner().invoke(app, ["--width", "3", "--name", "a", "--name", "b", "--last"]).exit_code == 0
    assert [1, Size(width=3, names=["a", "b"]), True] == SEEN


@pytest.mark.parametrize("given", [[], ["--width", "0"], ["--width", "3", "--height", "2"]])
def test_what_a_field_does_not_take_is_refused(app: typer.Typer, given: list[str]) -> None:
    assert CliRunner().invoke(app, given).exit_code == 2
