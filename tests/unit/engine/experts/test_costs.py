from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.experts.costs import COSTS, StepCosts
from tests.unit.engine.experts.parts import part, replies, reply


def test_a_call_is_split_by_slots() -> None:
    costs = StepCosts()
    # rows 0 to 2 are the first sequence's, 3 the second's, 4 the third's
    costs.add([part([0, 0, 3, 4])], [reply(4_000_000_000, cold=True)], replies((8.0, 500_000_000)))
    costs.add([part([4])], [reply(1_000_000_000)], replies((2.0, 10**9)))
    split = costs.split([3, 1, 1])
    assert split.tolist() == [[0.5, 2, 2, 0.5], [0.25, 1, 1, 0.25], [1.25, 2, 3, 0.25]]
    assert costs.split([1, 1]).tolist() == [[0.0] * 4] * 2  # split once


calls = st.lists(st.tuples(st.lists(st.integers(0, 99), min_size=1), st.floats(0, 9), st.integers(0, 10**9)))


@given(st.lists(calls, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_shares_add_up_and_who_had_no_slot_pays_nothing(
    layers: list[list[tuple[list[int], float, int]]], counts: list[int]
) -> None:
    costs, rows = StepCosts(), sum(counts)
    for layer in layers:
        parts = [part(sorted(row % rows for row in its)) for its, _, _ in layer]
        answers = [reply(compute, cold=compute % 2 == 0) for _, _, compute in layer]
        costs.add(parts, answers, replies(*((busy, 10**9) for _, busy, _ in layer)))
    split = costs.split(counts)
    flat = [call for layer in layers for call in layer]
    assert split.shape == (len(counts), len(COSTS))
    assert split.sum(axis=0) == pytest.approx(
        [
            len(flat),
            sum(compute for *_, compute in flat) / 1e9,
            sum(busy for _, busy, _ in flat),
            sum(compute % 2 == 0 for *_, compute in flat),
        ]
    )
    edges = np.cumsum([0, *counts])
    for i, shares in enumerate(split):
        its = set(range(edges[i], edges[i + 1]))
        if not any(its & {row % rows for row in asked} for asked, _, _ in flat):
            assert not shares.any()
