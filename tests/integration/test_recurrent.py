"""Layers with a recurrent state compute over a flat row what transformers computes with the whole sequence."""

from __future__ import annotations

import pytest

from faasmoe.engine.kv import snapshots
from faasmoe.engine.stats import StepStats
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import make_plan
from tests.integration.tiny_models import (
    PROMPTS,
    TOLERANCE,
    Checkpoint,
    ask,
    engine_on,
    greedy_tokens,
    is_greedy,
    load_model,
    reference_tokens,
    worst_difference,
)
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny

RECURRENT = (
    "bailing_hybrid",  # Kimi delta attention, and latent attention
    "granitemoehybrid",  # Mamba 2
    "jamba",  # Mamba
    "kimi_linear",
    "lfm2_moe",  # short convolutions
    "minimax",  # lightning attention
    "nemotron_h",  # Mamba 2, and layers that keep nothing
    "qwen3_5_moe_text",  # gated delta net
    "qwen3_next",
    "zaya",  # convolutions before attention
)


@pytest.fixture(scope="module", params=RECURRENT)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param)
    reference = save_tiny(request.param, folder)
    return Checkpoint(folder, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])


@pytest.fixture(scope="module")
def model(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> DenseModel:
    plan = make_plan(resolve(str(checkpoint.folder)), 3)
    return load_model(plan, InProcessPlatform(), tmp_path_factory.mktemp("artifacts"))


def test_logits_and_greedy_tokens(checkpoint: Checkpoint, model: DenseModel) -> None:
    assert not model.state_spec.truncatable
    assert worst_difference(model, checkpoint.reference, steps=4) < TOLERANCE
    assert greedy_tokens(model) == checkpoint.greedy


def test_prompts_in_chunks_beside_decodes_change_nothing(checkpoint: Checkpoint, model: DenseModel) -> None:
    assert greedy_tokens(model, max_step_tokens=4) == checkpoint.greedy


def test_preempted_runs_change_nothing(checkpoint: Checkpoint, model: DenseModel) -> None:
    spec = model.state_spec
    memory = spec.nbytes(64) + spec.nbytes(1)  # the longest, and little more
    with engine_on(model, kv_cache_bytes=memory, max_step_tokens=7) as engine:
        assert ask(engine, PROMPTS, ["a", "b", "a"]) == checkpoint.greedy
        assert engine.gauges()["preemptions"] > 0


def test_prompts_that_begin_like_one_before_go_on_from_a_snapshot(
    checkpoint: Checkpoint, model: DenseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "LEAST_DISTANCE", 16)
    prompt, answer = PROMPTS[-1], checkpoint.greedy[-1]
    again = [
        [*prompt, *answer, 5],
        [*prompt[:18], 9, 9],
        [*prompt[:15], 9, 9],
    ]  # all of it, a border, less than that
    reports: list[StepStats] = []
    with engine_on(model, reports.append, max_step_tokens=24) as engine:
        assert ask(engine, [prompt], ["a"]) == [answer]
        computed = []
        for each in again:
            reports.clear()
            (its,) = ask(engine, [each], ["a"])
            assert is_greedy(checkpoint.reference, each, its)
            computed.append(sum(report.prompt_tokens for report in reports))
    assert computed == [2, 20 - 16, 17]
