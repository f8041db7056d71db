"""The page on platforms shows the example that the conformance suite runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples/own_platform.py").read_text()


def test_the_page_shows_the_example_as_it_is() -> None:
    assert f"```python\n{EXAMPLE}```\n" in (ROOT / "docs/platforms.md").read_text()


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.splitlines()) < 100
