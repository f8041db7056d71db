"""The site works without a network: its pages load nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"([^\"]+)|<link\b[^>]*\bhref=\"([^\"]+)")


def test_no_page_loads_anything_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    pytest.importorskip("material", reason="mkdocs-material is missing: pip install '.[dev]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > 30
    loaded = {one or other for text in pages.values() for one, other in _LOADED.findall(text)}
    assert any(address.endswith("extra.css") for address in loaded)
    assert {address for address in loaded if "//" in address} == set()
    assert not any("sequenceDiagram" in text for text in pages.values())  # Material would load a script for it
