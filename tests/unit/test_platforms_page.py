"""The page on platforms shows the example that the conformance suite runs."""

from __future__ import annotations

from pathlib import Path

from faasmoe.platforms import registry
from faasmoe.platforms.options import own_options

NAMES = ("local", "inline", "nodes", "ray")
ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/platforms.md").read_text()
EXAMPLE = (ROOT / "examples/own_platform.py").read_text()


def test_the_page_shows_the_example_as_it_is() -> None:
    assert f"```python\n{EXAMPLE}```\n" in PAGE


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.splitlines()) < 100


def test_the_page_lists_the_options_of_the_platforms_in_this_repository() -> None:
    listed = [line for line in PAGE.splitlines() if line.startswith(tuple(f"| `{name}` | `" for name in NAMES))]
    assert listed == [
        f"| `{name}` | `{each.name}` | {each.default} | {each.help} |"
        for name in NAMES
        for each in own_options(registry.find(name).options)
    ]
