"""Documents quote what the published results hold."""

from __future__ import annotations

import pytest
from benchmarks.published import DOCUMENTS, FOLDER, filled, planned, published, shown

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
    assert (
        "| `memory_vs_baseline` | memory over one full model for each tenant | 0.100 |  | 1 | ≤ 0.2 | 0.332 | reached |"
        in new
    )
    assert "| faasmoe-shared | 0.000000100 " in new
    assert new.count("Not measured yet.") == 2
    assert new.startswith("a <!-- claims: one two -->\n| key |")
    assert filled(new, made) == new


def test_charts_that_a_document_shows() -> None:
    text = (
        "![Memory](evaluation/qwen2-pressure-tokens-per-second.png) ![](docs/evaluation/demo-a.png) ![](other.png)"
    )
    assert shown(text) == ["qwen2-pressure-tokens-per-second", "demo-a"]


def test_the_planner_is_held_against_what_was_measured() -> None:
    from faasmoe.planner.shape import ExpertLayer, ModelShape
    from tests.unit.planner.states import keeps

    shape = ModelShape(
        name="small", layers=(ExpertLayer(60, 4, 1_000_000),) * 2, dense_bytes=50_000_000, state=keeps(10_000),
        bytes_per_weight=2, width=1024,
    )  # fmt: skip
    settings = {"block_size": None, "keep_alive": 60.0}
    runs = [run("faasmoe-shared", n, settings=settings) for n in range(2)]
    made = results(*runs, run("faasmoe-private", settings=settings), run("shared-full", settings=settings))
    found = planned(made, shape)
    assert set(found) == {"`faasmoe-shared`, paper", "`faasmoe-private`, paper"}
    shared, private = found["`faasmoe-shared`, paper"], found["`faasmoe-private`, paper"]
    assert shared.memory == pytest.approx(1e9)
    assert 0.5e9 < shared.memory_predicted < private.memory_predicted < 1.5e9
    assert 0 < shared.invocations_predicted <= private.invocations_predicted


def test_published_memory_is_predicted() -> None:
    """Within the 15 % that are wanted."""
    from faasmoe.planner.shape import shape_of

    found = planned(published()["qwen2"], shape_of("qwen1.5-moe-a2.7b", layers=2, vocab=32000))
    assert len(found) >= 4
    assert all(one.memory_predicted == pytest.approx(one.memory, rel=0.15) for one in found.values())
