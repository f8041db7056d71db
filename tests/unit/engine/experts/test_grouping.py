from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.experts.grouping import Grouping, Part


@st.composite
def routings(draw: st.DrawFn) -> tuple[list[int], list[list[int]], int]:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    top_k = draw(st.integers(1, min(4, sum(sizes))))
    row = st.lists(st.integers(0, sum(sizes)), min_size=top_k, max_size=top_k, unique=True)
    return sizes, draw(st.lists(row, min_size=1, max_size=12)), draw(st.integers(1, 4))


def columns(part: Part) -> tuple[list[int], list[int], list[float]]:
    """Places in `part.rows`, experts of the block, weights."""
    words = np.frombuffer(part.slots, np.int32).reshape(3, -1)
    return words[0].tolist(), words[1].tolist(), words[2].view(np.float32).tolist()


def slots_of(sizes: list[int], parts: list[Part]) -> list[tuple[int, int, float]]:
    """(row, expert, weight) of all parts."""
    first = [sum(sizes[:block]) for block in range(len(sizes))]
    return [
        (int(part.rows[place]), first[part.block] + expert, weight)
        for part in parts
        for place, expert, weight in zip(*columns(part), strict=True)
    ]


@given(routings())
def test_every_slot_is_in_one_part_of_its_experts_block(routing: tuple) -> None:
    sizes, index, cores = routing
    weight = [[row + place / 8 for place in range(len(experts))] for row, experts in enumerate(index)]
    parts = Grouping(sizes, cores).parts(index, weight)
    wanted = [
        (row, expert, weight[row][place])
        for row, experts in enumerate(index)
        for place, expert in enumerate(experts)
        if expert < sum(sizes)
    ]
    assert sorted(slots_of(sizes, parts)) == sorted(wanted)
    for part in parts:
        assert part.rows.tolist() == sorted(set(part.slot_rows.tolist()))
        assert part.rows[columns(part)[0]].tolist() == part.slot_rows.tolist()
    blocks = [part.block for part in parts]
    assert blocks == sorted(blocks)


@given(routings())
def test_no_part_has_more_than_a_cores_share_unless_it_is_one_expert(routing: tuple) -> None:
    sizes, index, cores = routing
    parts = Grouping(sizes, cores).parts(index, [[1.0] * len(experts) for experts in index])
    share = sum(part.work for part in parts) / cores
    assert all(part.work <= share + 1e-9 or len(set(columns(part)[1])) == 1 for part in parts)
    if cores == 1:
        assert len({part.block for part in parts}) == len(parts)


def test_a_block_with_most_of_the_work_is_called_several_times() -> None:
    parts = Grouping([4, 4], 2).parts([[0, 1, 3, 5]], [[0.1, 0.2, 0.3, 0.4]])
    assert [(part.block, columns(part)[1], part.work) for part in parts] == [
        (0, [0, 1], 2.0),
        (0, [3], 1.0),
        (1, [1], 1.0),
    ]


def test_masked_slots_alone_make_no_call() -> None:
    assert Grouping([2], 2).parts([[2, 2]], [[0.5, 0.5]]) == []
