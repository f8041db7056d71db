"""Documents quote what the published results hold."""

from __future__ import annotations

import pytest
from benchmarks.published import DOCUMENTS, FOLDER, filled, published, shown

from tests.unit.evaluation.made import results, run


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_say_what_the_results_say(document) -> None:
    text = document.read_text()
    assert filled(text, published()) == text, "python -m benchmarks.published fills it"
    assert all((FOLDER / f"{name}.png").exists() for name in shown(text))


def test_figures_of_a_document_come_from_results() -> None:
    text = "\n".join(
        [
            "a <!-- claims: one two -->\nof before\n<!-- end --> b",
            "<!-- figures: one strategies-paper -->\n<!-- end -->",
            "<!-- figures: one blocks-paper -->\n<!-- end -->",
            "<!-- figures: other pressure -->\n<!-- end -->",
        ]
    )
    made = {"one": results(run("faasmoe-shared", memory=100), run("baseline", memory=1000))}
    new = filled(text, made)
    assert "of before" not in new
    assert "| `memory_vs_baseline` | memory over a full model a tenant | 0.100 |  | ≤ 0.2 | reached |" in new
    assert "| faasmoe-shared | 0.000000100 " in new
    assert new.count("Not measured yet.") == 2
    assert new.startswith("a <!-- claims: one two -->\n| key |")
    assert filled(new, made) == new


def test_charts_that_a_document_shows() -> None:
    text = (
        "![Memory](evaluation/qwen2-pressure-tokens-per-second.png) ![](docs/evaluation/demo-a.png) ![](other.png)"
    )
    assert shown(text) == ["qwen2-pressure-tokens-per-second", "demo-a"]
