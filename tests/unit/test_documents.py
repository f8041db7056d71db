"""Documents that describe the tree must match it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "faasmoe"


def test_the_architecture_describes_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    described = set(re.findall(r"^### `([a-z_/]+)`", text, re.MULTILINE))
    there = {str(path.parent.relative_to(PACKAGE)) for path in PACKAGE.rglob("__init__.py")} - {"."}
    assert described == there


def test_every_error_is_drawn_in_the_tree() -> None:
    from faasmoe import errors

    drawn = set(re.findall(r"[├└]─ (\w+)", errors.__doc__ or "")) | {"FaasmoeError"}
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert drawn == defined
