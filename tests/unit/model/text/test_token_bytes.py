from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.text.token_bytes import TokenBytes
from tokenizers import AddedToken, Tokenizer, decoders, models


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Mixtral's is made: words with a space of their own, bytes as a last resort."""
    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "<0xE5>", "<0xA4>", "<0x9C>", "▁dark", "ly"])}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens([AddedToken("<s>"), AddedToken("<unk>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize("text", ["It was a dark night — naïve, 夜.\n", "  two  spaces", "🎈"])
def test_bytes_of_all_tokens_are_those_of_the_text(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve(None).folder)
    assert b"".join(map(TokenBytes(tokenizer), tokenizer.encode(text))) == text.encode()


def test_tokens_alone_decode_to_their_bytes() -> None:
    tokenizer = AutoTokenizer.from_pretrained(resolve(None).folder)
    of = TokenBytes(tokenizer)
    assert all(of(i).decode(errors="replace") == tokenizer.decode([i]) for i in range(0, len(tokenizer), 7))


def test_sentencepiece_spaces_and_bytes() -> None:
    of = TokenBytes(sentencepiece())
    assert [of(i) for i in range(7)] == [b"<unk>", b"<s>", b"\xe5", b"\xa4", b"\x9c", b" dark", b"ly"]


def test_ids_that_pad_the_vocabulary_have_none() -> None:
    assert TokenBytes(sentencepiece())(7) == b""
