"""Benchmarks run by hand, and seldom: here it is seen that they find what they import."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("benchmarks", "examples")
    for file in (ROOT / folder).rglob("*.py")
    if file.stem != "__init__"
)
OURS = ("benchmarks", "examples", "faasmoe", "tests")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_finds_what_it_imports(name: str) -> None:
    try:
        assert import_module(name).__name__ == name
    except ModuleNotFoundError as error:
        if not error.name or error.name.startswith(OURS):
            raise
        pytest.skip(f"{error.name} is not installed")
