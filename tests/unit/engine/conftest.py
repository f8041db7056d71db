"""A tiny model that is served in this process."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.costs import StepCosts
from faasmoe.engine.grammar.compiler import GrammarCompiler
from faasmoe.engine.stats import StepStats
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    from faasmoe.model.synthesis.synthesis import _byte_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny("qwen2_moe", folder, vocab_size=257, eos_token_id=256)
    _byte_tokenizer().save_pretrained(folder)
    return folder, model


@pytest.fixture
def serving(tiny: tuple) -> Iterator[Runtime]:
    with Runtime(make_plan(resolve(str(tiny[0])), 4), InProcessPlatform, 128) as running:
        yield running


@pytest.fixture
def engine_with(serving: Runtime) -> Iterator[Callable[..., Engine]]:
    """Engines on the same model, with other options."""
    engines = []

    def start(
        observer: Callable[[StepStats], None] | None = None,
        costs: StepCosts | None = None,
        grammars: GrammarCompiler | None = None,
        **options: Any,
    ) -> Engine:
        engines.append(
            Engine(
                serving.model,
                serving.tokenizer,
                end_tokens=serving.tokenizer.end_tokens,
                max_model_len=128,
                options=EngineOptions(**options),
                observer=observer,
                costs=costs,
                grammars=grammars,
            )
        )
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def submit(
    to: Runtime | Engine, name: str, prompt: list[int], *, tenant: str = "", **params: object
) -> queue.SimpleQueue[Piece]:
    """Greedy unless told otherwise: whatever is sampled may be the end token."""
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    engine = to.engine if isinstance(to, Runtime) else to
    sampling = SamplingParams(**{"temperature": 0, **params})
    engine.submit(GenerationRequest(name, tuple(prompt), sampling, tenant=tenant), pieces.put)
    return pieces


def drain(pieces: queue.SimpleQueue[Piece]) -> tuple[str, Piece]:
    text = ""
    while True:
        piece = pieces.get(timeout=60)
        text += piece.text
        if piece.last:
            return text, piece


def greedy(model: torch.nn.Module, prompt: list[int], count: int) -> list[int]:
    ids = torch.tensor([prompt])
    for _ in range(count):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(prompt) :].tolist()
