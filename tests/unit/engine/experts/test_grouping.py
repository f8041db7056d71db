from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.experts import grouping
from faasmoe.engine.experts.grouping import Grouping, Part, combine, room_for_sums
from tests.instruction_sets import on_each

instruction_set = on_each(grouping)


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
        assert part.rows.tolist() == sorted(part.rows.tolist())
        assert part.rows[columns(part)[0]].tolist() == part.slot_rows.tolist()
        assert sorted(set(columns(part)[0])) == list(range(len(part.rows)))
        assert part.follows or len(set(part.rows.tolist())) == len(part.rows)
    blocks = [part.block for part in parts]
    assert blocks == sorted(blocks)
    assert [part.follows for part in parts] == [a == b for a, b in pairwise([-1, *blocks])]


def called(part: Part, outputs: np.ndarray) -> np.ndarray:
    """What a function answers: `outputs` `[T, experts, H]` by the router's weights, added as `experts_forward` does."""
    sums = np.zeros((len(part.rows), outputs.shape[2]), np.float32)
    for place, expert, weight in sorted(zip(*columns(part), strict=True), key=lambda slot: slot[1]):
        sums[place] += np.float32(weight) * outputs[part.rows[place], expert]
    return sums


def bits(sizes: list[int], cores: int, index: list[list[int]], outputs: np.ndarray) -> list[list[int]]:
    """Those of each row's sum of experts that answer `outputs` and count alike, cut for so many cores."""
    first = np.cumsum([0, *sizes])
    parts = Grouping(sizes, cores).parts(index, np.full(np.shape(index), 0.3))
    sums = [called(part, outputs[:, first[part.block] :]) for part in parts]
    out = torch.empty(len(index), outputs.shape[2])
    combine(parts, sums, out)
    return out.view(torch.int32).tolist()


@given(routings(), st.integers(2, 8), st.integers(0, 99), st.sampled_from([1, 17, 32]))
def test_a_rows_sum_has_the_same_bits_wherever_its_blocks_are_cut(
    routing: tuple, cores: int, seed: int, width: int
) -> None:
    sizes, index, _ = routing
    random = np.random.default_rng(seed)
    outputs = random.standard_normal((len(index), sum(sizes), width)) * 10.0 ** random.integers(-3, 4)
    outputs = np.where(random.random(outputs.shape) < 0.1, -0.0, outputs).astype(np.float32)
    together = bits(sizes, cores, index, outputs)
    assert together == bits(sizes, 1, index, outputs)
    alone = [bits(sizes, cores, [its], outputs[row : row + 1]) for row, its in enumerate(index)]
    assert together == [words for (words,) in alone]


def test_a_row_that_began_in_another_part_of_a_block_comes_slot_by_slot() -> None:
    index = [[5, 0, 4, 3], [4, 5, 6, 6], [1, 2, 6, 6]]  # expert 6 is none
    first, second = Grouping([6], 2).parts(index, np.ones((3, 4)))
    assert (first.follows, first.rows.tolist(), columns(first)[:2]) == (False, [0, 2], ([0, 1, 1], [0, 1, 2]))
    assert second.follows
    assert second.rows.tolist() == [0, 0, 0, 1]
    assert columns(second)[:2] == ([0, 1, 2, 3, 3], [3, 4, 5, 4, 5])


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


def test_weights_in_bfloat16_are_widened() -> None:
    weight = torch.tensor([[0.1, 0.7], [0.3, 0.2]]).bfloat16()
    bits = weight.view(torch.uint16).numpy()
    (part,) = Grouping([4], 1).parts([[0, 1], [2, 3]], bits)
    assert columns(part)[2] == weight.float().flatten().tolist()


def test_masked_slots_alone_make_no_call() -> None:
    assert Grouping([2], 2).parts([[2, 2]], [[0.5, 0.5]]) == []


def test_parts_stay_as_they_are_when_others_are_made() -> None:
    grouping = Grouping([2, 2], 2)
    (first,) = grouping.parts([[0]], [[0.25]])
    rows, slots = first.rows.copy(), bytes(first.slots)
    grouping.parts([[3], [2]], [[0.5], [0.75]])
    assert np.array_equal(first.rows, rows)
    assert bytes(first.slots) == slots


def test_work_is_what_reading_takes_until_rows_are_many() -> None:
    for rows, work in ((1, 1.0), (3, 1.0), (4, 4 / 3), (30, 10.0)):
        (part,) = Grouping([2], 1).parts([[1]] * rows, [[1.0]] * rows)
        assert part.work == work


def test_each_slot_has_a_weight() -> None:
    with pytest.raises(ValueError, match=r"experts \(1, 2\) with weights \(1, 1\)"):
        Grouping([2], 1).parts([[0, 1]], [[1.0]])


@pytest.mark.parametrize("width", [1, 20, 2048])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_comes_for_a_row_is_added_in_order_and_rounded_once(width: int, dtype: torch.dtype) -> None:
    random = np.random.default_rng(width)
    index = [[0, 3, 4], [5, 5, 5], [1, 0, 5], [4, 2, 3]]  # nothing comes for the second row
    parts = Grouping([2, 1, 2], 2).parts(index, np.ones((4, 3)))
    sums = [random.standard_normal((len(part.rows), width)).astype(np.float32) for part in parts]
    wanted = np.zeros((4, width), np.float32)
    for part, its in zip(parts, sums, strict=True):
        wanted[part.rows] += its
    got = room_for_sums(torch.empty(4, width, dtype=dtype))
    combine(parts, sums, got)
    assert torch.equal(got.to(dtype), torch.from_numpy(wanted).to(dtype))


def test_nothing_comes_if_nothing_was_asked() -> None:
    out = torch.ones(2, 8).bfloat16()
    combine([], [], out)
    assert torch.equal(out, torch.zeros(2, 8).bfloat16())
