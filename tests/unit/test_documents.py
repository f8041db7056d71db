"""Documents that describe the tree must match it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "faasmoe"
DOCS = ROOT / "docs"


def read(name: str) -> str:
    return (DOCS / name).read_text()


def test_the_architecture_describes_every_package() -> None:
    described = set(re.findall(r"^### `([a-z_/]+)`", read("architecture.md"), re.MULTILINE))
    there = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert described == there


def test_the_architecture_names_only_what_is_there() -> None:
    text = read("architecture.md")
    dotted = re.findall(r"`((?:api|cli|engine|evaluation|experts|fleet|model|orchestrator|planner|platforms|protocol"
                        r"|readers|tenancy|util)(?:\.[a-z_]+)+)`", text)  # fmt: skip
    dotted = [name for name in dotted if not name.startswith("model.safetensors")]  # a file of checkpoints
    paths = re.findall(r"`([a-z_]+(?:/[a-z_]+)+(?:/|\.py))`", text)
    there = [name.replace(".", "/") for name in dotted] + [
        path.removesuffix("/").removesuffix(".py") for path in paths
    ]
    assert len(there) > 40
    gone = {name for name in there if not (PACKAGE / name).exists() and not (PACKAGE / f"{name}.py").exists()
            and not (ROOT / name).exists() and not (ROOT / f"{name}.py").exists()}  # fmt: skip
    assert gone == set()


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
