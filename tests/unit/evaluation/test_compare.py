from __future__ import annotations

import pytest

from faasmoe.evaluation.compare import compare
from tests.unit.evaluation.made import results, run


def test_what_both_have_is_compared() -> None:
    before = results(*(run("baseline", n, 1_000_000_000 + n) for n in range(3)), run("shared-full"))
    after = results(*(run("baseline", n, 2_000_000_000 + n) for n in range(3)), run("faasmoe-shared"))
    found = {one.figure: one for one in compare(before, after)}
    assert {one.kind[2] for one in found.values()} == {"baseline"}
    assert found["memory_mean_bytes"].ratio.value == pytest.approx(2)
    assert found["memory_mean_bytes"].distinct
    assert not found["tokens_per_second"].distinct


def test_runs_with_other_settings_are_other_runs() -> None:
    before, after = results(run("baseline")), results(run("baseline", settings={"block_size": 20}))
    assert compare(before, after) == []


def test_what_is_extrapolated_is_marked() -> None:
    found = compare(results(run("baseline", extrapolated=True)), results(run("baseline")))
    assert all(one.extrapolated for one in found)
    assert all(one.ratio is None or one.ratio.value == pytest.approx(1) for one in found)
