"""What single tokens stand for, in bytes: text that is cut anywhere has no characters to show yet."""

from __future__ import annotations

import re
from typing import Any

from faasmoe.model.adapter.tokenization import bytes_to_unicode

# GPT-2's alphabet: a letter for every byte
_BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")  # how SentencePiece falls back to bytes
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's


class TokenBytes:
    """The bytes of a transformers tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)  # written as they are
        self._byte_level = _is_byte_level(tokenizer)

    def __call__(self, token: int) -> bytes:
        """The UTF-8 bytes of `token`, which may begin or end within a character.

        Empty for ids that only pad the vocabulary.
        """
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:
            return b""
        if token in self._added:
            return str(name).encode()
        if self._byte_level:
            return bytes(_BYTE_OF[letter] for letter in name)
        byte = _BYTE_TOKEN.fullmatch(name)
        return bytes([int(byte[1], 16)]) if byte else str(name).replace(_SPACE, " ").encode()


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)  # only fast tokenizers have one
    return backend is not None and "ByteLevel" in str(backend.decoder)
