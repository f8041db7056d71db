"""The site draws the pages' sequence diagrams itself (scripts/sequence_diagrams.py)."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = """
sequenceDiagram
    participant A as client
    participant B as server
    A->>B: a question that is too long for one line of text
    loop each step
        B->>B: think <hard>
        B-->>A: reply
    end
    B-xA: lost
"""


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sequence_diagrams", ROOT / "scripts" / "sequence_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_diagram_has_its_names_and_texts(hook: ModuleType) -> None:
    drawn = ElementTree.fromstring(hook.Diagram(SOURCE).svg())
    texts = [each.text for each in drawn.iter("text")]
    assert {"client", "server", "each step", "think <hard>", "reply", "lost"} <= set(texts)
    assert {"a question that is too long", "for one line of text"} <= set(texts)
    width = float(drawn.attrib["width"])
    assert all(0 < float(each.attrib["x"]) < width for each in drawn.iter("text"))


def test_a_line_of_another_kind_is_an_error(hook: ModuleType) -> None:
    with pytest.raises(ValueError, match="has the line 'alt yes'"):
        hook.Diagram("sequenceDiagram\nalt yes\nend")


def test_no_page_leaves_a_diagram_to_a_script(hook: ModuleType) -> None:
    pages = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    assert sum(page.count("```mermaid") for page in pages) >= 3
    drawn = [hook.on_page_markdown(page) for page in pages]
    assert not any("mermaid" in page for page in drawn)
    assert sum(len(re.findall(r"<svg .*?</svg>", page)) for page in drawn) >= 3
