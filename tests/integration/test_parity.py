"""Contract 3: a model served in blocks computes what transformers computes with the same model whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from faasmoe.engine.speculation.row_cost import RowCost
from faasmoe.experts import PRELOAD
from faasmoe.experts.handler import load
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.plan import make_plan
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from tests.integration.tiny_models import (
    NAMED,
    PROMPTS,
    TOLERANCE,
    Checkpoint,
    ask,
    assert_preemption_changes_nothing,
    assert_reuse_changes_nothing,
    engine_on,
    greedy_tokens,
    last_logits,
    load_model,
    reference_tokens,
    state_for,
    worst_difference,
)
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with start("local", PRELOAD) as running:
        yield running


@pytest.fixture(scope="module", params=NAMED)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param)
    reference = save_tiny(request.param, folder)
    return Checkpoint(folder, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])


@pytest.mark.parametrize("block_size", [1, 3, 8])
def test_logits_and_greedy_tokens_through_real_functions(
    checkpoint: Checkpoint, platform: LocalPlatform, tmp_path: Path, block_size: int
) -> None:
    platform.remove([status.name for status in platform.status().functions])
    model = load_model(make_plan(resolve(str(checkpoint.folder)), block_size), platform, tmp_path)
    assert worst_difference(model, checkpoint.reference, steps=4) < TOLERANCE
    assert greedy_tokens(model) == checkpoint.greedy


def test_prompts_in_chunks_beside_decodes_change_nothing(
    checkpoint: Checkpoint, platform: LocalPlatform, tmp_path: Path
) -> None:
    model = load_model(make_plan(resolve(str(checkpoint.folder)), 4), platform, tmp_path)
    assert greedy_tokens(model, max_step_tokens=4) == checkpoint.greedy


def test_preempted_and_prefix_reusing_runs_change_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    model = load_model(make_plan(resolve(str(checkpoint.folder)), 4), InProcessPlatform(), tmp_path)
    assert_preemption_changes_nothing(model, checkpoint)
    # the last prompt is computed from the last token of the answer on: the model had not seen it
    assert 0 < assert_reuse_changes_nothing(model, checkpoint)[0] <= 2 + 1 + 1 + 2


def test_preempted_and_prefix_reusing_runs_change_nothing_through_real_functions(
    platform: LocalPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which are called for a part of their experts at a time."""
    monkeypatch.setattr("faasmoe.engine.experts.dispatch.WORTH_SPLITTING", 0)
    platform.remove([status.name for status in platform.status().functions])
    reference = save_tiny("qwen2_moe", tmp_path, num_experts_per_tok=5)
    checkpoint = Checkpoint(tmp_path, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])
    model = load_model(make_plan(resolve(str(tmp_path)), 8), platform, tmp_path / "artifacts")
    assert_preemption_changes_nothing(model, checkpoint)
    # the last prompt is computed from the last token of the answer on: the model had not seen it
    assert 0 < assert_reuse_changes_nothing(model, checkpoint)[0] <= 2 + 1 + 1 + 2


def test_speculation_changes_no_token(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy and sampled, in steps with single tokens and prompts; what the models say repeats what it was given."""
    monkeypatch.setattr(RowCost, "share", lambda *_: 0.1)  # whatever this machine takes
    model = load_model(make_plan(resolve(str(checkpoint.folder)), 4), InProcessPlatform(), tmp_path)
    prompts = [*PROMPTS, PROMPTS[0] * 6, [*PROMPTS[1], *PROMPTS[0], *PROMPTS[1]]]
    tenants = ["a", "b", "a", "b", "a"]
    memory = 96 * model.state_spec.nbytes(1)  # so that some are preempted
    accepted = 0.0
    for params in ({}, {"temperature": 0.5, "seed": 5, "repetition_penalty": 0.3}):
        with engine_on(model, speculation="off") as engine:
            plain = ask(engine, prompts, tenants, **params)
        for options in ({}, {"kv_cache_bytes": memory, "max_step_tokens": 16}):
            with engine_on(model, **options) as engine:
                assert ask(engine, prompts, tenants, **params) == plain
                accepted += engine.gauges()["speculation_accepted"]
                assert engine.gauges()["preemptions"] > 0 or not options
    assert accepted > 0


@pytest.mark.parametrize("model_type", ["qwen2_moe", "mixtral", "deepseek_v3", "gpt_oss"])
@pytest.mark.parametrize("drafted", [2, 8])
def test_a_token_has_the_bits_of_its_own_step_in_the_step_that_verifies_it(
    model_type: str, drafted: int, tmp_path: Path
) -> None:
    """In bfloat16, also beside a prompt and a single token of others."""
    save_tiny(model_type, tmp_path)
    model = load_model(
        make_plan(resolve(str(tmp_path)), 3, "bfloat16"), InProcessPlatform(), tmp_path / "artifacts"
    )
    tokens = PROMPTS[2] + PROMPTS[1]
    places = list(range(20, 20 + 1 + drafted))

    def begun(count: int) -> SequenceState:
        state = state_for(model, 64)
        model.forward(tokens[:count], list(range(count)), [Span(state, count)], [0])
        return state

    state = begun(20)
    single = [model.forward([tokens[at]], [at], [Span(state, 1)], [0])[0] for at in places]
    rows, where = [tokens[at] for at in places], list(range(len(places)))
    alone = model.forward(rows, places, [Span(begun(20), len(rows), apart=True)], where)
    assert torch.equal(alone, torch.stack(single))
    spans = [Span(begun(20), len(rows), apart=True), Span(begun(6), 1), Span(state_for(model, 8), 5)]
    beside = model.forward([*rows, 7, *tokens[:5]], [*places, 6, *range(5)], spans, where)
    assert torch.equal(beside, torch.stack(single))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("model_type", ["qwen2_moe", "mixtral", "deepseek_v3", "gpt_oss"])
def test_a_row_has_the_same_bits_in_any_company(
    model_type: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if blocks are cut, and elsewhere for each company. A prompt has, in chunks of the same size."""
    monkeypatch.setattr("faasmoe.engine.experts.dispatch.WORTH_SPLITTING", 0)
    save_tiny(model_type, tmp_path, num_experts_per_tok=5)
    platform = InProcessPlatform()
    platform.capabilities = replace(platform.capabilities, parallelism=3)
    model = load_model(make_plan(resolve(str(tmp_path)), 8, dtype), platform, tmp_path / "artifacts")
    tokens = PROMPTS[2] + PROMPTS[1]

    def decode(at: int, others: int, prompt: int) -> torch.Tensor:
        spans = [Span(state_for(model, 64), at) for _ in range(1 + others)]
        for span in spans:
            model.forward(tokens[:at], list(range(at)), [span], [0])
        singles = [Span(span.state, 1) for span in spans]
        chunk = [Span(state_for(model, 32), prompt)] if prompt else []
        row = [tokens[at], *range(40, 40 + others), *PROMPTS[2][:prompt]]
        places = [at] * (1 + others) + list(range(prompt))
        return model.forward(row, places, [*singles, *chunk], [0])[0]

    def begin(others: int) -> torch.Tensor:
        """Logits of a whole prompt, beside others' single tokens."""
        spans = [Span(state_for(model, 64), len(tokens)), *(Span(state_for(model, 8), 1) for _ in range(others))]
        row, places = [*tokens, *range(40, 40 + others)], [*range(len(tokens)), *[0] * others]
        return model.forward(row, places, spans, list(range(len(tokens))))

    cuts = set()
    for at in (5, 9, 13):
        alone = decode(at, 0, 0)
        for others, prompt in ((1, 0), (6, 0), (3, 13), (0, 21)):
            platform.calls.clear()
            assert torch.equal(decode(at, others, prompt), alone)
            cuts.add(platform.calls.count("layer-01-block-00"))
    assert torch.equal(begin(5), begin(0))
    assert max(cuts) > 1


def test_bfloat16_is_as_near_as_bfloat16_can_be(tmp_path: Path) -> None:
    """Against float32, the served model errs no more than transformers' own bfloat16 forward."""
    exact = save_tiny("qwen2_moe", tmp_path)
    plan = make_plan(resolve(str(tmp_path)), 3, "bfloat16")
    model = load_model(plan, InProcessPlatform(), tmp_path / "artifacts")
    own = type(exact).from_pretrained(tmp_path, dtype=torch.bfloat16)
    for prompt in PROMPTS:
        spans = [Span(state_for(model, len(prompt)), len(prompt))]
        logits = model.forward(prompt, list(range(len(prompt))), spans, [len(prompt) - 1])
        wanted = last_logits(exact, prompt)
        assert (logits[0] - wanted).abs().mean() < 1.5 * (last_logits(own, prompt) - wanted).abs().mean() + 1e-3


def test_the_handler_is_what_platforms_are_given() -> None:
    from faasmoe.experts import HANDLER

    assert f"{load.__module__}:{load.__name__}" == HANDLER
