"""Rows that are sent to a node."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.client.rows import runs_of, views_of


@given(st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=4))
def test_each_row_that_is_read_is_in_one_run(picked: list[list[int]]) -> None:
    runs = runs_of([np.array(each, np.int32).data for each in picked])
    rows = [row for first, count in zip(runs[::2], runs[1::2], strict=True) for row in range(first, first + count)]
    assert rows == sorted({row for each in picked for row in each})
    ends = [first + count for first, count in zip(runs[::2], runs[1::2], strict=True)]
    assert all(end < first for end, first in zip(ends, runs[2::2], strict=False)), "neighbours are in one run"


def test_views_are_the_rows() -> None:
    shared = memoryview(bytes(range(40)))
    assert [bytes(view) for view in views_of(shared, 4, [1, 2, 9, 1])] == [
        bytes(range(4, 12)),
        bytes(range(36, 40)),
    ]
    assert views_of(shared, 4, []) == []
