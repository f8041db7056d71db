from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoConfig, Qwen3VLMoeConfig

from faasmoe.errors import CheckpointError
from faasmoe.model.architecture import read_config
from faasmoe.model.checkpoint.source import ModelSource, resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.text.prompts import PromptEncoder
from faasmoe.model.text.tokenizer import Tokenizer


@pytest.fixture
def tokenizer() -> Tokenizer:
    folder = resolve(None).folder
    return Tokenizer.load(folder, AutoConfig.from_pretrained(folder))


def test_text_survives(tokenizer: Tokenizer) -> None:
    text = "It was a dark night — naïve, 夜.\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_tokens == {0}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A tokenizer without a chat template."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(resolve(None).folder / name, tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_the_chat_template_of_a_processor_is_read_if_there_is_no_other(bare: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(resolve(None).folder)
    assert Tokenizer.load(bare, config)._tokenizer.chat_template is None
    file, saved = bare / "chat_template.json", tmp_path / "saved"
    file.write_text(json.dumps({"chat_template": "{{ messages[0].content }}!"}))
    Tokenizer.load(bare, config).save(saved)
    assert PromptEncoder.saved(saved)._template == "{{ messages[0].content }}!"
    (bare / "chat_template.jinja").write_text("its own")
    assert Tokenizer.load(bare, config)._tokenizer.chat_template == "its own"
    (bare / "chat_template.jinja").unlink()
    file.write_text('{"chat_template": 5}')
    with pytest.raises(CheckpointError, match=r"chat_template\.json: chat_template must be a text"):
        Tokenizer.load(bare, config)


def test_the_end_of_a_text_may_be_named_by_the_text_config_alone(bare: Path) -> None:
    config = Qwen3VLMoeConfig(text_config={"eos_token_id": [7, 9]})
    assert getattr(config, "eos_token_id", None) is None
    assert Tokenizer.load(bare, config).end_tokens == {0, 7, 9}


def test_a_folder_without_tokenizer_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        Tokenizer.load(tmp_path, AutoConfig.from_pretrained(resolve(None).folder))


def test_a_generation_config_that_is_none_is_named(tmp_path) -> None:
    folder = resolve(None).folder
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "generation_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"generation_config\.json should hold a JSON object, not a list"):
        Tokenizer.load(tmp_path, AutoConfig.from_pretrained(folder))


EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"tokenizer.json": None}, r"no usable tokenizer: none of tokenizer\.json, "),
        ({"tokenizer.json": ""}, r"tokenizer\.json is not JSON"),
        ({"tokenizer.json": "{"}, r"tokenizer\.json is not JSON"),
        ({"tokenizer.json": "[]"}, r"tokenizer\.json should hold a JSON object, not a list"),
        ({"tokenizer.json": "{}"}, "no usable tokenizer"),
        ({"tokenizer.json": json.dumps(EMPTY)}, r"no usable tokenizer: tokenizer\.json has an empty vocabulary"),
        ({"tokenizer.json": None, "vocab.json": "{}", "merges.txt": ""}, "no usable tokenizer|vocab"),
        ({"tokenizer.json": None, "tokenizer.model": ""}, "no usable tokenizer"),
        ({"tokenizer_config.json": "{"}, r"tokenizer_config\.json"),
        ({"tokenizer_config.json": "[]"}, r"tokenizer_config\.json should hold a JSON object, not a list"),
    ],
)
def test_a_broken_or_empty_tokenizer_is_named(tmp_path: Path, files: dict[str, str | None], said: str) -> None:
    folder = Path(shutil.copytree(resolve(None).folder, tmp_path / "model"))
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_text(content)
    for load in (lambda: Tokenizer.load(folder, read_config(folder)), lambda: make_plan(ModelSource("m", folder))):
        with pytest.raises(CheckpointError, match=said) as caught:
            load()
        assert "\n" not in str(caught.value)
