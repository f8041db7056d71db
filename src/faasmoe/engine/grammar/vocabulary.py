"""A model's tokens as llguidance wants them: their bytes, the special ones, and those that end a text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llguidance import LLTokenizer, TokenizerWrapper


class GrammarTokenizer(Protocol):
    """The part of a tokenizer that is needed here."""

    @property
    def special_tokens(self) -> Collection[int]:
        """Token ids that no text spells."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for; empty for ids that only pad the vocabulary."""

    def plain(self, text: str) -> list[int]:
        """Token ids of `text` alone, without the tokens that the model wants before or behind a text."""


class _Described:
    """What llguidance reads of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokenizer: GrammarTokenizer, size: int, ends: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = ends[0]
        self.tokens = [tokenizer.token_bytes(token) for token in range(size)]
        self.special_token_ids = sorted({*tokenizer.special_tokens, *ends} & set(range(size)))

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):  # asked with bytes first, to see whether these are taken
            raise TypeError("texts are encoded, no bytes")
        return self._tokenizer.plain(text)


def grammar_vocabulary(tokenizer: GrammarTokenizer, size: int, ends: Collection[int]) -> LLTokenizer:
    """The tokens 0 to `size` - 1, of which `ends` end a text; not empty.

    With 151,936 tokens it takes about a second and 50 MB: see `python -m benchmarks.structured`.
    """
    known = sorted(end for end in ends if end < size)
    return LLTokenizer(TokenizerWrapper(_Described(tokenizer, size, known)), eos_token=known)
