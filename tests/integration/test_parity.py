"""Contract 3: a model served in blocks computes what transformers computes with the same model whole."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import model_type_to_module_name
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.engine.speculation.row_cost import RowCost
from faasmoe.engine.stats import StepStats
from faasmoe.errors import UnsupportedModel
from faasmoe.experts import PRELOAD
from faasmoe.experts.handler import load
from faasmoe.model.architecture import inspect_architecture
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan, make_plan
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.platforms.base import Platform
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny, tiny_config

NAMED = ("qwen2_moe", "qwen3_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3", "granitemoe", "gpt_oss")
PROMPTS = [torch.randint(3, 128, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 13, 21)]
TOLERANCE = 1e-4
GREEDY = 32  # tokens


@dataclass(frozen=True)
class Checkpoint:
    """A tiny model on disk, and what transformers makes of it."""

    folder: Path
    reference: PreTrainedModel
    greedy: list[list[int]]  # for each of PROMPTS


@pytest.fixture(scope="module")
def platform() -> Iterator[LocalPlatform]:
    with start("local", PRELOAD) as running:
        yield running


@pytest.fixture(scope="module", params=NAMED)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp(request.param)
    reference = save_tiny(request.param, folder)
    return Checkpoint(folder, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])


def load_model(plan: ModelPlan, platform: Platform, folder: Path) -> DenseModel:
    platform.deploy(write_functions(plan.blocks, folder))
    dispatch = Dispatch(platform, plan.blocks)
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    model.start(dispatch, threads=1)
    return model


def last_logits(reference: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return reference(torch.tensor([tokens]), use_cache=False).logits[0, -1].float()


def state_for(model: DenseModel, tokens: int) -> SequenceState:
    state = model.state_spec.allocate()
    state.reserve(tokens)
    return state


def worst_difference(model: DenseModel, reference: PreTrainedModel, steps: int) -> float:
    """Largest difference of any logit, with all prompts decoding together in one flat row."""
    tokens = [list(prompt) for prompt in PROMPTS]
    states, seen, worst = [state_for(model, len(its) + steps) for its in PROMPTS], [0] * len(PROMPTS), 0.0
    for _ in range(steps):
        new = [its[done:] for its, done in zip(tokens, seen, strict=True)]
        positions = [p for its, done in zip(tokens, seen, strict=True) for p in range(done, len(its))]
        ends = torch.tensor([len(n) for n in new]).cumsum(0) - 1
        spans = [Span(state, len(n)) for state, n in zip(states, new, strict=True)]
        logits = model.forward([t for n in new for t in n], positions, spans, ends.tolist())
        for i, its in enumerate(tokens):
            wanted = last_logits(reference, its)
            worst = max(worst, float((logits[i] - wanted).abs().max()))
            seen[i] = len(its)
            its.append(int(wanted.argmax()))
    return worst


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
    assert_reuse_changes_nothing(model, checkpoint)


def test_preempted_and_prefix_reusing_runs_change_nothing_through_real_functions(
    platform: LocalPlatform, tmp_path: Path
) -> None:
    platform.remove([status.name for status in platform.status().functions])
    reference = save_tiny("qwen2_moe", tmp_path)
    checkpoint = Checkpoint(tmp_path, reference, [reference_tokens(reference, prompt) for prompt in PROMPTS])
    model = load_model(make_plan(resolve(str(tmp_path)), 3), platform, tmp_path / "artifacts")
    assert_preemption_changes_nothing(model, checkpoint)
    assert_reuse_changes_nothing(model, checkpoint)


def assert_preemption_changes_nothing(model: DenseModel, checkpoint: Checkpoint) -> None:
    """All prompts at once, with memory for little more than the longest of them, in small steps and large ones."""
    a_token = model.state_spec.nbytes(1)
    for step in (7, 512):
        with engine_on(model, kv_cache_bytes=64 * a_token, max_step_tokens=step) as engine:
            assert ask(engine, PROMPTS, ["a", "b", "a"]) == checkpoint.greedy
            assert engine.gauges()["preemptions"] > 0


def assert_reuse_changes_nothing(model: DenseModel, checkpoint: Checkpoint) -> None:
    """Prompts that begin like ones before: what is known of them is copied, or taken over, or another tenant's."""
    prompt, answer = PROMPTS[-1], checkpoint.greedy[-1]
    again = [[*prompt, *answer[:9], 7, 9], [*prompt, 8], prompt, [*prompt, *answer, 5]]

    def check(answers: list[list[int]]) -> None:
        assert all(is_greedy(checkpoint.reference, *pair) for pair in zip(again, answers, strict=True))

    reports: list[StepStats] = []
    with engine_on(model, reports.append, max_step_tokens=24) as engine:
        assert ask(engine, [prompt], ["a"]) == [answer]
        reports.clear()
        check(ask(engine, again, ["a"] * 4))
    # the last prompt is computed from the last token of the answer on: the model had not seen it
    assert sum(report.prompt_tokens for report in reports) == 2 + 1 + 1 + 2
    with engine_on(model, reports.append) as engine:
        assert ask(engine, [prompt], ["a"]) == [answer]
        reports.clear()
        check(ask(engine, again, ["b", "c", "d", "e"]))
    assert sum(report.prompt_tokens for report in reports) == sum(map(len, again))


def test_speculation_changes_no_token(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy and sampled, in steps with single tokens and prompts; what the models say repeats what it was given."""
    monkeypatch.setattr(RowCost, "share", lambda *_: 0.1)  # whatever this machine takes
    model = load_model(make_plan(resolve(str(checkpoint.folder)), 4), InProcessPlatform(), tmp_path)
    prompts = [*PROMPTS, PROMPTS[0] * 6, [*PROMPTS[1], *PROMPTS[0], *PROMPTS[1]]]
    tenants = ["a", "b", "a", "b", "a"]
    memory = 96 * model.state_spec.nbytes(1)  # so that some are preempted
    for params in ({}, {"temperature": 0.5, "seed": 5, "repetition_penalty": 0.3}):
        with engine_on(model, speculation="off") as engine:
            plain = ask(engine, prompts, tenants, **params)
        for options in ({}, {"kv_cache_bytes": memory, "max_step_tokens": 16}):
            with engine_on(model, **options) as engine:
                assert ask(engine, prompts, tenants, **params) == plain
                assert engine.gauges()["speculation_accepted"] > 0
                assert engine.gauges()["preemptions"] > 0 or not options


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


class Ids:
    """A tokenizer whose text is the token ids."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = True) -> str:
        return "".join(f"{i} " for i in token_ids)


@contextmanager
def engine_on(
    model: DenseModel, observer: Callable[[StepStats], None] | None = None, **options: Any
) -> Iterator[Engine]:
    engine = Engine(
        model,
        Ids(),
        end_tokens=frozenset(),
        max_model_len=128,
        options=EngineOptions(**options),
        observer=observer,
    )
    yield engine
    engine.close()


def ask(engine: Engine, prompts: list[list[int]], tenants: list[str], **sampling: Any) -> list[list[int]]:
    """What the engine makes of all prompts at once."""
    streams: list[queue.SimpleQueue[Piece]] = []
    for i, (prompt, tenant) in enumerate(zip(prompts, tenants, strict=True)):
        streams.append(queue.SimpleQueue())
        params = SamplingParams(GREEDY, **{"temperature": 0, **sampling})
        engine.submit(GenerationRequest(str(i), tuple(prompt), params, tenant=tenant), streams[-1].put)
    texts = []
    for stream in streams:
        text = ""
        while True:
            piece = stream.get(timeout=120)
            assert piece.error is None
            text += piece.text
            if piece.last:
                break
        texts.append([int(token) for token in text.split()])
    return texts


def greedy_tokens(model: DenseModel, **options: int) -> list[list[int]]:
    """What an engine makes of all prompts at once."""
    with engine_on(model, **options) as engine:
        return ask(engine, PROMPTS, [""] * len(PROMPTS))


def reference_tokens(reference: PreTrainedModel, prompt: list[int]) -> list[int]:
    tokens = list(prompt)
    for _ in range(GREEDY):
        tokens.append(int(last_logits(reference, tokens).argmax()))
    return tokens[len(prompt) :]


def is_greedy(reference: PreTrainedModel, prompt: list[int], answer: list[int]) -> bool:
    """Whether `answer` is what `reference_tokens` would return, asked for all of its tokens at once."""
    with torch.no_grad():
        logits = reference(torch.tensor([prompt + answer]), use_cache=False).logits[0]
    return len(answer) == GREEDY and logits[len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def dispatched_types() -> list[str]:
    """Every causal language model of transformers whose module mentions the registry of experts."""
    models = Path(transformers.__file__).parent / "models"
    found = []
    for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        module = model_type_to_module_name(name)
        text = models / module / f"modeling_{module}.py"  # to import them all takes longer than to test them
        if text.exists() and "use_experts_implementation" in text.read_text():
            found.append(name)
    return found


@pytest.mark.parametrize("model_type", [name for name in dispatched_types() if name not in NAMED])
def test_any_other_architecture_works_or_is_refused_by_name(model_type: str, tmp_path: Path) -> None:
    try:
        config = tiny_config(model_type)
    except Exception as error:  # noqa: BLE001 - such configs need sizes that the tiny ones lack
        pytest.skip(f"{model_type}: no tiny config: {str(error).splitlines()[0]}")
    try:
        inspect_architecture(config)
    except UnsupportedModel as refusal:
        assert model_type in str(refusal)  # noqa: PT017 - either outcome is right
        return
    reference = save_tiny(model_type, tmp_path)
    model = load_model(make_plan(resolve(str(tmp_path)), 3), InProcessPlatform(), tmp_path / "artifacts")
    assert worst_difference(model, reference, steps=3) < TOLERANCE


def test_many_architectures_are_served() -> None:
    """So that a change cannot make everything 'refused by name' unnoticed."""
    served = 0
    for model_type in dispatched_types():
        try:
            inspect_architecture(tiny_config(model_type))
        except Exception:  # noqa: BLE001 - counted by what is left
            continue
        served += 1
    assert served >= 33


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
