from __future__ import annotations

import pytest
from transformers import AutoConfig

from faasmoe.errors import CheckpointError
from faasmoe.model.source import resolve
from faasmoe.model.tokenizer import Tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    folder = resolve(None).folder
    return Tokenizer.load(folder, AutoConfig.from_pretrained(folder))


def test_text_survives(tokenizer: Tokenizer) -> None:
    text = "It was a dark night — naïve, 夜.\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_tokens == {0}


def test_a_folder_without_tokenizer_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        Tokenizer.load(tmp_path, AutoConfig.from_pretrained(resolve(None).folder))


def test_a_generation_config_that_is_none_is_named(tmp_path) -> None:
    folder = resolve(None).folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"generation_config\.json cannot be used"):
        Tokenizer.load(tmp_path, AutoConfig.from_pretrained(folder))
