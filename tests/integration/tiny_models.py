"""Tiny models on disk, what transformers makes of them, and engines that serve them."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.engine.stats import StepStats
from faasmoe.model.dense.attention import Span
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.plan import ModelPlan
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.platforms.base import Platform
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

NAMED = (
    "qwen2_moe",
    "qwen3_moe",
    "mixtral",
    "olmoe",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "glm_moe_dsa",
    "granitemoe",
    "gpt_oss",
)
PROMPTS = [torch.randint(3, 128, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 13, 21)]
TOLERANCE = 1e-4
GREEDY = 32  # tokens


@dataclass(frozen=True)
class Checkpoint:
    """A tiny model on disk, and what transformers makes of it."""

    folder: Path
    reference: PreTrainedModel
    greedy: list[list[int]]  # for each of PROMPTS


def load_model(plan: ModelPlan, platform: Platform, folder: Path) -> DenseModel:
    platform.deploy(write_functions(plan.blocks, folder))
    dispatch = Dispatch(platform, plan.blocks)
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    model.start(dispatch, threads=1)
    return model


def assert_preemption_changes_nothing(model: DenseModel, checkpoint: Checkpoint) -> None:
    """All prompts at once, with memory for little more than the longest of them, in small steps and large ones."""
    spec = model.state_spec
    memory = spec.nbytes(64) + (
        0 if spec.truncatable else spec.nbytes(16)
    )  # a recurrent state takes as much for one token
    for step in (7, 512):
        with engine_on(model, kv_cache_bytes=memory, max_step_tokens=step) as engine:
            assert ask(engine, PROMPTS, ["a", "b", "a"]) == checkpoint.greedy
            assert engine.gauges()["preemptions"] > 0


def assert_reuse_changes_nothing(model: DenseModel, checkpoint: Checkpoint) -> list[int]:
    """Prompts that begin like ones before: what is known of them is copied, or taken over, or another tenant's.

    Returns how many of their tokens were computed if they were the same tenant's, and how many if another's.
    """
    prompt, answer = PROMPTS[-1], checkpoint.greedy[-1]
    again = [[*prompt, *answer[:9], 7, 9], [*prompt, 8], prompt, [*prompt, *answer, 5]]
    computed = []
    for tenants, options in ((["a"] * 4, {"max_step_tokens": 24}), (["b", "c", "d", "e"], {})):
        reports: list[StepStats] = []
        with engine_on(model, reports.append, **options) as engine:
            assert ask(engine, [prompt], ["a"]) == [answer]
            reports.clear()
            answers = ask(engine, again, tenants)
            assert all(is_greedy(checkpoint.reference, *pair) for pair in zip(again, answers, strict=True))
        computed.append(sum(report.prompt_tokens for report in reports))
    assert computed[1] == sum(map(len, again))
    return computed


def last_logits(reference: PreTrainedModel, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = reference(torch.tensor([tokens]), use_cache=False).logits
    return logits[0, -1].float()


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


class Ids:
    """A tokenizer whose text is the token ids."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(f"{i} " for i in token_ids)

    def token_bytes(self, token: int) -> bytes:
        return f"{token} ".encode()


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


def greedy_tokens(model: DenseModel, **options: Any) -> list[list[int]]:
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
