"""Text to token ids and back, with the model's own tokenizer. What users write is encoded by `model.text.prompts`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers  # its names are looked up where they are used: most of them bring torch

from faasmoe.errors import CheckpointError, brief
from faasmoe.model.checkpoint.folder import check_vocabulary, vocabularies
from faasmoe.model.checkpoint.json_file import read_json
from faasmoe.model.config import generation
from faasmoe.model.text.token_bytes import TokenBytes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_TEXTS_KEPT = 1 << 16  # of single tokens
_JSON = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json")
_PROCESSOR_TEMPLATE = "chat_template.json"
_TEXT = "The quick brown fox jumps over 12 lazy dogs."


class Tokenizer:
    """A model's tokenizer. Texts that spell control tokens become them."""

    def __init__(self, tokenizer: Any, end_tokens: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._bytes = TokenBytes(tokenizer)
        self._decode = _decoder(tokenizer)
        self._decode_one = lru_cache(_TEXTS_KEPT)(lambda token, skip: self._decode([token], skip))
        self.end_tokens = end_tokens  # ids after which a sequence is over

    @classmethod
    def load(cls, folder: Path, config: PretrainedConfig) -> Tokenizer:
        """Raises `CheckpointError` if the folder holds no tokenizer that transformers can read, or an empty one.

        Also if the chat template of a processor cannot be read, and the tokenizer has none.
        """
        check_vocabulary(folder)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            empty = _is_empty(tokenizer)
        except Exception as error:  # tokenizer classes raise whatever their parsers do
            for file in filter(Path.is_file, (folder / name for name in _JSON)):
                read_json(file)  # raises by name if that is the cause
            raise CheckpointError(f"{folder} holds no usable tokenizer: {brief(error)}") from error
        if empty:
            files = " and ".join(vocabularies(folder))
            raise CheckpointError(
                f"{folder} holds no usable tokenizer: {files} has an empty vocabulary, or is not what "
                f"{type(tokenizer).__name__} reads, so that no text has tokens"
            )
        if not tokenizer.chat_template:
            tokenizer.chat_template = _template_of(folder)
        return cls(tokenizer, frozenset(_end_tokens(folder, config, tokenizer)))

    def save(self, folder: Path) -> None:
        """Write what `saved` needs."""
        self._tokenizer.save_pretrained(folder)

    @classmethod
    def saved(cls, folder: Path) -> Tokenizer:
        """The tokenizer that `save` wrote, for encoding: without end tokens. Imports torch unless it is a fast one."""
        fast = (folder / "tokenizer.json").exists()
        kind = transformers.PreTrainedTokenizerFast if fast else transformers.AutoTokenizer
        return cls(kind.from_pretrained(folder, trust_remote_code=False), frozenset())

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`, with the tokens that the model wants before a text."""
        return list(self._tokenizer.encode(text))

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; bytes that make no whole character become U+FFFD."""
        if len(token_ids) == 1:  # what a stream asks for with each token, to know what the next one adds
            return self._decode_one(token_ids[0], skip_special_tokens)
        return self._decode(list(token_ids), skip_special_tokens)

    @property
    def special_tokens(self) -> frozenset[int]:
        """Token ids that no text spells, and that `decode` leaves out."""
        return frozenset(self._tokenizer.all_special_ids)

    def plain(self, text: str) -> list[int]:
        """Token ids of `text` alone, without the tokens that the model wants before or behind a text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that `token` stands for, which may begin or end within a character."""
        return self._bytes(token)


def _is_empty(tokenizer: Any) -> bool:
    """Whether it makes no tokens of texts. transformers makes such ones where files are missing, and says nothing."""
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    return not words or not tokenizer.encode(_TEXT, add_special_tokens=False)


def _decoder(tokenizer: Any) -> Callable[[list[int], bool], str]:
    """What a tokenizer's `decode` comes to: transformers' own looks at the type of each token first."""
    kind = type(tokenizer)
    fast = transformers.PreTrainedTokenizerFast
    if isinstance(tokenizer, fast) and kind._decode is fast._decode and kind.decode is fast.decode:
        backend = tokenizer.backend_tokenizer
        return lambda tokens, skip: str(backend.decode(tokens, skip_special_tokens=skip))
    return lambda tokens, skip: str(
        tokenizer.decode(tokens, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    )


def _template_of(folder: Path) -> str | None:
    """The chat template of a processor, which tokenizers do not read: older checkpoints that also see have no other."""
    file = folder / _PROCESSOR_TEMPLATE
    if not file.is_file():
        return None
    template = read_json(file).get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(f"{file}: chat_template must be a text")
    return template


def _end_tokens(folder: Path, config: PretrainedConfig, tokenizer: Any) -> set[int]:
    ends = set(generation.end_tokens(folder))
    text = config.get_text_config()  # a model that also sees or hears may name it there alone
    for source in (*(getattr(each, "eos_token_id", None) for each in (config, text)), tokenizer.eos_token_id):
        ends.update(source if isinstance(source, list) else [] if source is None else [source])
    return ends
