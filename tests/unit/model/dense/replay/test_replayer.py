"""A step from a list has the bits of one by transformers' forward, with whatever steps and sequences around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from faasmoe.errors import FunctionError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.dense.layer_experts import Meanwhile
from faasmoe.model.dense.linear import linears
from faasmoe.model.dense.replay import replayer
from faasmoe.model.dense.replay.replayer import Replayer
from faasmoe.model.plan import make_plan
from faasmoe.model.state.sequence_state import SequenceState
from tests.tiny import save_tiny


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step with so many rows is recorded."""
    monkeypatch.setattr(replayer, "BEFORE", 0)


def routed(layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
    """In place of experts: every layer but one leaves room for shared experts."""
    meanwhile.pause()
    if layer != 1:
        meanwhile()
    meanwhile.resume()
    return (hidden.float() * (weight * (index + 1)).sum(1, keepdim=True)).to(hidden.dtype)


class Model:
    """Two sequences and more on one model, by lists or without."""

    def __init__(self, model: DenseModel) -> None:
        self._model = model
        self._states: list[SequenceState] = []

    def step(self, *counts: int, apart: bool = False, token: int = 5) -> Tensor:
        """So many tokens of each sequence."""
        while len(self._states) < len(counts):
            self._states.append(self._model.state_spec.allocate())
            self._states[-1].reserve(200)
        spans = [Span(state, n, apart and n > 1) for state, n in zip(self._states, counts, strict=False) if n]
        tokens, positions = [], []
        for span in spans:
            before = span.state.layers[1].length  # type: ignore[attr-defined]
            positions += range(before, before + span.count)
            tokens += [(token + 3 * len(tokens) + at) % 40 for at in positions[len(tokens) :]]
        return self._model.forward(tokens, positions, spans, list(range(len(tokens))))


def model_of(model_type: str, folder: Path, dtype: str) -> DenseModel:
    save_tiny(model_type, folder)
    plan = make_plan(resolve(str(folder)), 3, dtype)
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    model.start(routed, 2)
    return model


def replayer_of(model: DenseModel) -> Replayer:
    assert model._replayer is not None
    return model._replayer


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model_type", ["qwen2_moe", "glm4_moe", "gpt_oss", "deepseek_v3", "mixtral"])
def test_bits_are_those_of_transformers_own_forward(model_type: str, dtype: str, tmp_path: Path) -> None:
    model = model_of(model_type, tmp_path, dtype)
    steps = [
        (1, 0),
        (1, 1),
        (1, 1),
        (40, 1),
        (1, 1),
        (1, 0),
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 1),
        (1, 2),
        (0, 1),
        (1, 1),
    ]
    ours = Model(model)
    got = [ours.step(*counts) for counts in steps]
    apart = [ours.step(3, apart=True) for _ in range(3)]
    assert replayer_of(model).refused == ""
    assert {rows for rows, program in replayer_of(model)._programs.items() if program.checked} == {1, 2, 3}
    replayer_of(model).refused = "to compare with"
    theirs = Model(model)
    for counts, logits in zip(steps, got, strict=True):
        assert torch.equal(logits, theirs.step(*counts))
    for logits in apart:
        assert torch.equal(logits, theirs.step(3, apart=True))


@pytest.mark.parametrize("model_type", ["qwen2_moe", "deepseek_v3"])
def test_helpers_that_begin_with_shared_experts_change_nothing(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linears, "_SMALL_BYTES", 0)  # helpers take part in all layers
    model = model_of(model_type, tmp_path, "bfloat16")
    ours = Model(model)
    got = [ours.step(*counts) for counts in [(1, 0), (1, 1)] * 20]
    programs = replayer_of(model)._programs
    assert all(program.checked for program in programs.values())
    assert set(programs) == {1, 2}
    replayer_of(model).refused = "to compare with"
    theirs = Model(model)
    for counts, logits in zip([(1, 0), (1, 1)] * 20, got, strict=True):
        assert torch.equal(logits, theirs.step(*counts))


def test_programs_are_of_the_experts_that_run(tmp_path: Path) -> None:
    model = model_of("qwen2_moe", tmp_path, "bfloat16")
    for _ in range(3):
        Model(model).step(1)
    with_experts = Model(model).step(1)
    model.route_to(lambda layer, hidden, index, weight, meanwhile: torch.zeros_like(hidden))
    assert not torch.equal(Model(model).step(1), with_experts)


def test_a_step_that_fails_leaves_the_next_as_it_was(tmp_path: Path) -> None:
    model = model_of("qwen2_moe", tmp_path, "bfloat16")
    wanted = Model(model).step(1)

    def fails(layer: int, *_: object) -> Tensor:
        if layer == broken:
            raise FunctionError("block", "OSError", "is not there")
        return routed(layer, *_)  # type: ignore[arg-type]

    broken = -1
    model.route_to(fails)
    for attempt in range(6):
        broken = attempt % 2
        if broken:
            with pytest.raises(FunctionError, match="is not there"):
                Model(model).step(1)
        else:
            broken = -1
            assert torch.equal(Model(model).step(1), wanted)
    assert replayer_of(model).refused == ""
    assert replayer_of(model)._programs[1].checked


@torch.inference_mode()
@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x + 1 if x.sum() > 0 else x - 1,
        lambda x: x[x > 0].sum() + x,
        lambda x: x * next(NUMBERS),
    ],
)
def test_what_is_not_the_same_each_time_is_run_as_it_is(forward: Callable[[Tensor], Tensor]) -> None:
    ours = Replayer(lambda inputs: forward(inputs[0]))
    torch.manual_seed(0)
    for number in range(1, 6):
        x = torch.randn(3)
        NUMBERS.at = number
        got = ours.run(1, [x])
        NUMBERS.at = number
        assert torch.equal(got, forward(x))
    assert ours.refused


class Numbers:
    """The same number as long as it is set so."""

    at = 0

    def __next__(self) -> float:
        return float(self.at)


NUMBERS = Numbers()


@torch.inference_mode()
def test_long_steps_run_as_they_are() -> None:
    calls: list[int] = []

    def forward(inputs: Sequence[Tensor]) -> Tensor:
        calls.append(len(inputs[0]))
        return inputs[0] + 1

    ours = Replayer(forward)
    for rows in [31] * 4 + [32] * 4:
        x = torch.randn(rows)
        assert torch.equal(ours.run(rows, [x]), x + 1)
    assert calls == [31, 31, 32, 32, 32, 32]


def test_nothing_is_recorded_before_the_threads_run(tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path)
    plan = make_plan(resolve(str(tmp_path)), 3, "bfloat16")
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    wanted = [Model(model).step(1) for _ in range(3)]
    assert model._replayer is None
    model.start(lambda layer, hidden, *_: torch.zeros_like(hidden), 2)  # as before
    assert all(torch.equal(Model(model).step(1), logits) for logits in wanted)


@torch.inference_mode()
def test_rows_that_are_seen_often_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "BEFORE", 4)
    calls: list[int] = []

    def forward(inputs: Sequence[Tensor]) -> Tensor:
        calls.append(len(inputs[0]))
        return inputs[0] + 1

    ours = Replayer(forward)
    for rows in [2] * 4 + [3] * 10 + [2] * 6:
        x = torch.randn(rows)
        assert torch.equal(ours.run(rows, [x]), x + 1)
    assert calls == [2] * 4 + [3] * 6 + [2] * 2
