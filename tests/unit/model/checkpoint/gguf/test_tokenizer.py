from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.convert_slow_tokenizer import bytes_to_unicode

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.file_state import FileState
from faasmoe.model.checkpoint.gguf.header import GgufHeader
from faasmoe.model.checkpoint.gguf.tokenizer import tokenizer_of

BYTES = {
    "ggml.model": "gpt2",
    "ggml.pre": "qwen2",
    "ggml.tokens": ["<|end|>", "<think>", *bytes_to_unicode().values(), "he", "ll", "hell"],
    "ggml.token_type": np.array([3, 4] + [1] * 259),
    "ggml.merges": ["h e", "l l", "he ll"],
    "ggml.eos_token_id": 0,
    "ggml.add_bos_token": False,
    "chat_template": "{{ messages[0].content }}!",
}
PIECES = {
    "ggml.model": "llama",
    "ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "h", "i", "▁h", "▁hi"],
    "ggml.scores": np.array([0.0] * 259 + [-9, -8, -7, -1, -2], np.float32),
    "ggml.token_type": np.array([2, 3, 3] + [6] * 256 + [1] * 5),
    "ggml.bos_token_id": 1,
    "ggml.eos_token_id": 2,
    "ggml.unknown_token_id": 0,
}  # fmt: skip


def header(values: dict[str, Any]) -> GgufHeader:
    metadata = {"general.architecture": "qwen3moe"} | {
        f"tokenizer.{k}": v for k, v in values.items() if v is not None
    }
    return GgufHeader(Path("a.gguf"), FileState(0, 0, 0, 0), metadata, ())


def test_bytes_are_merged_and_control_tokens_found() -> None:
    found = tokenizer_of(header(BYTES))
    ids = found.encode("hello<think> 夜<|end|>")
    assert [found.convert_ids_to_tokens(i) for i in ids[:3]] == ["hell", "o", "<think>"]
    assert ids[-1] == found.eos_token_id == 0
    assert found.decode(ids) == "hello<think> 夜<|end|>"
    assert found.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"


def test_pieces_come_after_the_token_that_begins_texts() -> None:
    found = tokenizer_of(header(PIECES))
    assert found.convert_ids_to_tokens(found.encode("hi")) == ["<s>", "▁hi"]
    assert found.decode(found.encode("hi 夜"), skip_special_tokens=True) == "hi 夜"
    assert found.unk_token == "<unk>"
    without = tokenizer_of(header(PIECES | {"ggml.add_bos_token": False}))
    assert without.convert_ids_to_tokens(without.encode("hi")) == ["▁hi"]


def test_a_split_that_means_another_one_is_that(tmp_path: Path) -> None:
    splits = [tokenizer_of(header(BYTES | {"ggml.pre": name})) for name in ("glm4", "llama-bpe")]
    first, second = (each.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12345 it's") for each in splits)
    assert first == second
    assert [piece for piece, _ in first][:2] == ["123", "45"]


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"ggml.model": "rwkv"}, UnsupportedModel, "tokenizer.ggml.model is rwkv: gpt2 and llama are served"),
        ({"ggml.model": None}, UnsupportedModel, "tokenizer.ggml.model is None"),
        ({"ggml.pre": "default"}, UnsupportedModel, "pre is default, and how such a tokenizer splits texts is not kn"),
        ({"ggml.pre": None}, UnsupportedModel, "pre is None"),
        ({"ggml.tokens": None}, CheckpointError, "tokens is no list of texts"),
        ({"ggml.tokens": np.array([1])}, CheckpointError, "tokens is no list of texts"),
        ({"ggml.token_type": np.array([1])}, CheckpointError, "token_type has 1 entries for 261 tokens"),
        ({"ggml.eos_token_id": 261}, CheckpointError, "eos_token_id is 261: must be below 261, the vocabulary"),
        ({"ggml.merges": ["x"]}, CheckpointError, "holds no usable tokenizer: "),
        ({"chat_template": 7}, CheckpointError, "chat_template is no text"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_refused(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        tokenizer_of(header(BYTES | changes))
