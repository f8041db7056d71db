from __future__ import annotations

import random

import numpy as np
import pytest

from faasmoe.errors import OptionError
from faasmoe.planner.activations import RecordedActivations
from faasmoe.planner.routing import GRID, untouched
from faasmoe.planner.shape import ExpertLayer, ModelShape
from tests.unit.planner.states import keeps

QWEN = ModelShape(
    name="qwen", layers=(ExpertLayer(60, 4, 17_301_504),) * 2, dense_bytes=0, state=keeps(0), bytes_per_weight=2,
    width=2048,
)  # fmt: skip


def drawn(tokens: int, experts: int, top_k: int, weights: list[float] | None = None) -> RecordedActivations:
    random.seed(1)
    rows = []
    for _ in range(tokens):
        left = list(range(experts))
        row = []
        for _ in range(top_k):
            row.append(random.choices(left, [weights[e] for e in left] if weights else None)[0])
            left.remove(row[-1])
        rows.append(row)
    return RecordedActivations((np.array(rows, dtype=np.int32),) * 2)


def test_uniform_routing_touches_what_the_design_says() -> None:
    curve = untouched(QWEN, 1)
    assert [round(curve.touched(tokens) / 2) for tokens in (1, 8, 16, 32, 64)] == [4, 25, 40, 53, 59]


@pytest.mark.parametrize(("block_size", "blocks"), [(1, 60), (10, 6), (25, 3), (60, 1)])
def test_one_token_touches_as_many_blocks_as_drawing_says(block_size: int, blocks: int) -> None:
    curve = untouched(QWEN, block_size)
    assert curve.functions == 2 * blocks
    random.seed(0)
    drawn_blocks = [len({e // block_size for e in random.sample(range(60), 4)}) for _ in range(20_000)]
    assert curve.touched(1) == pytest.approx(2 * sum(drawn_blocks) / 20_000, rel=0.01)


def test_curves_fall_from_everything_to_nothing() -> None:
    curve = untouched(QWEN, 25)
    for column in (curve.apart, curve.together, curve.bytes_together):
        assert (np.diff(column) <= 0).all()
        assert column[-1] == pytest.approx(0, abs=1e-6)
    assert curve.bytes_together[0] == 2 * 60 * 17_301_504


def test_a_recorded_trace_of_uniform_routing_is_uniform_routing() -> None:
    recorded, uniform = untouched(QWEN, 10, drawn(4000, 60, 4)), untouched(QWEN, 10)
    few = GRID <= 64
    assert recorded.apart[few] == pytest.approx(uniform.apart[few], rel=0.05, abs=0.05)
    assert recorded.together[few] == pytest.approx(uniform.together[few], rel=0.05, abs=0.05)


def test_skewed_routing_touches_fewer() -> None:
    skewed = drawn(2000, 60, 4, [1 / (1 + e) for e in range(60)])
    assert untouched(QWEN, 10, skewed).touched(1) < 0.8 * untouched(QWEN, 10).touched(1)


def test_consecutive_tokens_that_are_alike_touch_fewer_than_independent_ones() -> None:
    rows = np.repeat(drawn(200, 60, 4).layers[0], 10, axis=0)  # ten tokens at a time pick the same
    curve = untouched(QWEN, 1, RecordedActivations((rows, rows)))
    ten = GRID.searchsorted(10)
    assert curve.together[ten] > curve.apart[ten] + 20


def test_masked_slots_touch_nothing() -> None:
    index = np.array([[0, 60], [60, 60], [59, 1]], dtype=np.int32)
    assert RecordedActivations((index,)).hits(0, 60, 30).tolist() == [[True, False], [False, False], [True, True]]


def test_activations_are_saved_and_read(tmp_path) -> None:
    file = tmp_path / "activations.npz"
    drawn(50, 60, 4).save(file)
    again = RecordedActivations.load(file)
    assert [layer.tolist() for layer in again.layers] == [layer.tolist() for layer in drawn(50, 60, 4).layers]
    again.check([60, 60])
    with pytest.raises(OptionError, match="2 layers with experts, the model has 3"):
        again.check([60] * 3)
    with pytest.raises(OptionError, match="there are 8 in the model"):
        again.check([8, 8])


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_other_files_are_no_activations(tmp_path, content: bytes) -> None:
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(OptionError, match="holds no recorded activations"):
        RecordedActivations.load(file)
    with pytest.raises(OptionError, match="holds no recorded activations"):
        RecordedActivations.load(tmp_path / "gone")
