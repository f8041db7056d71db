from __future__ import annotations

import pytest
from transformers import AutoConfig

from faasmoe.errors import CheckpointError, RequestError
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


def test_a_model_without_a_template_gets_the_contents(tokenizer: Tokenizer) -> None:
    messages = [{"role": "system", "content": "One."}, {"role": "user", "content": "Two."}]
    assert tokenizer.decode(tokenizer.encode_chat(messages)) == "One.\n\nTwo.\n\n"


def test_a_template_is_used_and_may_refuse(tokenizer: Tokenizer) -> None:
    tokenizer._tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no systems') }}{% endif %}"
        "[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hi."}])
    assert tokenizer.decode(ids) == "[user] Hi.[assistant]"
    with pytest.raises(RequestError, match="no systems"):
        tokenizer.encode_chat([{"role": "system", "content": "Hi."}])


def test_a_folder_without_tokenizer_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        Tokenizer.load(tmp_path, AutoConfig.from_pretrained(resolve(None).folder))
