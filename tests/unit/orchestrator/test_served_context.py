from __future__ import annotations

import json
import logging
import queue
from pathlib import Path

import pytest
import torch

from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import OptionError, RequestError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import context_length, make_plan
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.orchestrator.loaded_model import LoadedModel
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.orchestrator.served_context import KVShare
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece
from faasmoe.readers.parser import RequestParser
from tests.platforms import InProcessPlatform
from tests.reading import Letters
from tests.tiny import save_tiny

SHARE = KVShare(8 << 20, 4, stated=True)  # 2 MiB each


def spec(a_token: int) -> StateSpec:
    """One layer in which a token takes half of `a_token` bytes, and as many again while the cache grows."""
    return StateSpec({0: KVCacheSpec(1, a_token // 16, a_token // 16, torch.float32, torch.float32)})


def test_the_context_is_what_the_model_the_option_and_memory_all_allow(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert SHARE.context(131072, None, spec(1024)) == 2048
    assert "2048 of the model's 131072 tokens" in caplog.text
    assert "(8 MiB, --kv-cache-memory, shared by 4 orchestrators)" in caplog.text
    assert "--kv-cache-memory 512MiB holds all of it" in caplog.text
    assert SHARE.context(1000, None, spec(1024)) == 1000
    assert SHARE.context(131072, 2048, spec(1024)) == 2048
    assert SHARE.context(131072, 100, spec(1024)) == 100
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "INFO"]


def test_what_was_asked_for_and_does_not_fit_is_refused() -> None:
    with pytest.raises(OptionError) as caught:
        SHARE.context(131072, 4096, spec(1024))
    assert str(caught.value) == (
        "--max-model-len 4096: the KV cache (8 MiB, --kv-cache-memory, shared by 4 orchestrators) "
        "holds 2048 tokens: must be 2048 at most, or --kv-cache-memory 16MiB at least"
    )
    assert KVShare(16 << 20, 4, stated=True).context(131072, 4096, spec(1024)) == 4096
    with pytest.raises(
        OptionError, match=r"holds 0 tokens of this model: --kv-cache-memory must be 32MiB at least"
    ):
        SHARE.context(131072, None, spec(4 << 20))


def test_a_server_keeps_the_memory_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = [50 << 20]
    monkeypatch.setattr("faasmoe.engine.kv.allocator.available_memory", lambda: available[0])
    first = KVShare.of(EngineOptions(), 2, tmp_path)
    assert (first.nbytes, first.each) == (10 << 20, 5 << 20)
    available[0] = 1 << 20
    assert KVShare.of(EngineOptions(), 2, tmp_path) == first
    assert KVShare.of(EngineOptions(kv_cache_bytes=7), 2, tmp_path) == KVShare(7, 2, stated=True)


def test_a_chat_without_a_limit_fills_what_memory_holds_of_a_large_context(tmp_path: Path) -> None:
    """A tiny model with a context that no memory holds."""
    from faasmoe.model.synthesis.synthesis import _byte_tokenizer

    save_tiny("qwen2_moe", tmp_path / "m", vocab_size=257, eos_token_id=256, max_position_embeddings=262144)
    _byte_tokenizer().save_pretrained(tmp_path / "m")
    plan = make_plan(resolve(str(tmp_path / "m")), 4)
    loaded = LoadedModel(plan, tmp_path / "artifacts")
    keeps = loaded.model.state_spec
    share = KVShare.of(EngineOptions(kv_cache_bytes=keeps.nbytes(100)), 1, tmp_path)
    context = share.context(context_length(plan, None), None, keeps)
    assert context == 100
    parser = RequestParser(Letters(), Bounds("m", 257, context))
    body = {"model": "m", "messages": [{"role": "user", "content": "abc"}], "ignore_eos": True}
    asked = parser.parse("chat", json.dumps(body).encode())
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    options = EngineOptions(kv_cache_bytes=share.each)
    with Runtime(loaded, InProcessPlatform, context, options) as serving:
        serving.engine.submit(GenerationRequest("a", asked.prompts[0], asked.params), pieces.put)
        while not (piece := pieces.get(timeout=60)).last:
            pass
        assert (piece.finish_reason, piece.tokens) == ("length", 97)
        for prompt, more, taken in ((3, 98, 97), (3, 97, 97), (100, 5, 1)):
            stated = parser.parse(
                "completions", json.dumps({"model": "m", "prompt": "a" * prompt, "max_tokens": more}).encode()
            )
            assert stated.params.max_tokens == taken
        text = "the maximum context length is 100 tokens; the prompt has 100 and max_tokens asks for 1 more"
        with pytest.raises(RequestError, match=text) as caught:
            serving.engine.submit(GenerationRequest("b", stated.prompts[0], stated.params), pieces.put)
        assert (caught.value.param, caught.value.code) == ("prompt", "context_length_exceeded")
