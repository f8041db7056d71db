from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from faasmoe.errors import EngineStopped, RequestError
from faasmoe.model.plan import make_plan
from faasmoe.model.source import resolve
from faasmoe.orchestrator.request import GenerationRequest, Piece, SamplingParams
from faasmoe.orchestrator.serving import Serving
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    from faasmoe.model.synthesis import _byte_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    model = save_tiny("qwen2_moe", folder, vocab_size=257, eos_token_id=256)
    _byte_tokenizer().save_pretrained(folder)
    return folder, model


@pytest.fixture
def serving(tiny: tuple) -> Iterator[Serving]:
    with Serving(make_plan(resolve(str(tiny[0])), 4), InProcessPlatform, 128) as running:
        yield running


def submit(serving: Serving, name: str, prompt: list[int], **params: object) -> queue.SimpleQueue[Piece]:
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    serving.engine.submit(GenerationRequest(name, tuple(prompt), SamplingParams(**params)), pieces.put)
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


def test_requests_together_give_what_each_gives_alone(serving: Serving, tiny: tuple) -> None:
    prompts = [[5, 6, 7], list(range(40)), [99]]
    streams = [submit(serving, str(i), p, max_tokens=12, temperature=0) for i, p in enumerate(prompts)]
    for prompt, stream in zip(prompts, streams, strict=True):
        text, last = drain(stream)
        assert text == serving.tokenizer.decode(greedy(tiny[1], prompt, 12))
        assert (last.tokens, last.finish_reason) == (12, "length")


def test_what_does_not_fit_is_refused_before_anything_runs(serving: Serving) -> None:
    with pytest.raises(RequestError, match="takes 128 tokens; the prompt has 120") as caught:
        submit(serving, "a", [1] * 120, max_tokens=9)
    assert (caught.value.param, caught.value.code) == ("max_tokens", "context_length_exceeded")
    with pytest.raises(RequestError, match="empty"):
        submit(serving, "b", [])
    assert serving.engine.load() == (0, 0)


def test_a_cancelled_request_frees_its_place(serving: Serving) -> None:
    pieces = submit(serving, "a", [1, 2], max_tokens=100, temperature=0)
    pieces.get(timeout=60)
    serving.engine.cancel("a")
    serving.engine.cancel("a")
    assert serving.engine.load() == (0, 0)


def test_a_failing_step_ends_its_requests_and_not_the_engine(serving: Serving) -> None:
    names = [status.name for status in serving.platform.status().functions]
    specs = dict(serving.platform._functions)
    serving.platform.remove(names)
    _, last = drain(submit(serving, "a", [1, 2], max_tokens=4))
    assert last.error is not None
    assert "UnknownFunction" in last.error
    serving.platform._functions.update(specs)
    assert drain(submit(serving, "b", [1, 2], max_tokens=4))[1].finish_reason == "length"


def test_closing_ends_what_runs(serving: Serving) -> None:
    pieces = submit(serving, "a", [1, 2], max_tokens=120, temperature=0)
    serving.engine.close()
    assert "EngineStopped" in (drain(pieces)[1].error or "")
    assert not serving.engine.alive
    with pytest.raises(EngineStopped):
        submit(serving, "b", [1])


def test_the_end_token_ends_without_showing(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = serving.model.forward

    def ends_soon(tokens: list[int], positions: list[int], spans: list, wanted: list[int]) -> torch.Tensor:
        logits = forward(tokens, positions, spans, wanted).clone()
        if positions[-1] >= 4:
            logits[:, 256] = 1e9
        return logits

    monkeypatch.setattr(serving.model, "forward", ends_soon)
    text, last = drain(submit(serving, "a", [65, 66], max_tokens=50, temperature=0))
    assert (last.finish_reason, last.tokens) == ("stop", 4)
    assert "endoftext" not in text
