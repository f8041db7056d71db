"""Documents that describe the tree must match it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from faasmoe.cli.main import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "faasmoe"
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")),
]
# Options of other programs and of scripts of this repository, and one that the changelog says is gone.
OTHERS = {
    *("--index-url", "--no-cache-dir", "--torch-backend"),  # pip, uv
    *("--create-home", "--home-dir", "--now", "--preserve-env", "--shell", "--system"),  # useradd, systemctl, sudo
    *(
        "--cpus",
        "--entrypoint",
        "--init",
        "--pids-limit",
        "--read-only",
        "--rm",
        "--stop-timeout",
        "--tmpfs",
    ),  # docker
    *("--dbname", "--file", "--format", "--owner"),  # PostgreSQL
    *("--corpus", "--help", "--only", "--windows"),  # benchmarks
    *("--address", "--from-literal", "--head", "--num-cpus"),  # Ray, kubectl
    "--allow-anonymous",
}


def read(name: str) -> str:
    return (DOCS / name).read_text()


def test_the_architecture_describes_every_package() -> None:
    described = set(re.findall(r"^### `([a-z_/]+)`", read("architecture.md"), re.MULTILINE))
    there = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert described == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_modules_that_are_there(page: Path) -> None:
    text = page.read_text()
    packages = "|".join(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())
    dotted = re.findall(rf"`((?:{packages})(?:\.[a-z_]+)+)", text)
    dotted = [name for name in dotted if not name.startswith("model.safetensors")]  # a file of checkpoints
    paths = re.findall(r"`((?:src/|tests/)?[a-z_]+(?:/[a-z_0-9]+)+(?:/|\.py))`", text)
    there = [name.replace(".", "/") for name in dotted] + [
        path.removesuffix("/").removesuffix(".py")
        for path in paths
        if not path.startswith(("torch/", "transformers/"))
    ]
    roots = (PACKAGE, ROOT, ROOT / "tests")
    gone = {
        name
        for name in there
        if not any(path.exists() for root in roots for path in (root / name, root / f"{name}.py"))
    }
    assert gone == set()
    assert page.name != "architecture.md" or len(there) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_options_that_there_are(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()))
    assert named - options(typer.main.get_command(app)) - OTHERS == set()


def options(command: Any) -> set[str]:
    """Long options of a command and its subcommands."""
    own = {name for each in command.params for name in [*each.opts, *each.secondary_opts] if name.startswith("--")}
    return own.union(*(options(each) for each in getattr(command, "commands", {}).values()))


def test_the_architecture_lists_every_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rows = re.findall(r"^\| ([a-z][^|`]+) \|", read("architecture.md"), re.MULTILINE)
    assert {each["name"] for each in contracts} <= {row.strip() for row in rows}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def test_every_error_is_drawn_in_the_tree() -> None:
    from faasmoe import errors

    drawn = set(re.findall(r"[├└]─ (\w+)", errors.__doc__ or "")) | {"FaasmoeError"}
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == defined
