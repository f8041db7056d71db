"""The tokenizer in a GGUF file's metadata, made by transformers' converter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from faasmoe.errors import CheckpointError, UnsupportedModel, brief
from faasmoe.model.adapter.gguf_tokenizers import (
    GGUF_PRE_TOKENIZER_SPLITS,
    GGUF_TOKENIZER_MAPPING,
    convert_gguf_tokenizer,
)
from faasmoe.model.checkpoint.gguf.header import GgufHeader
from faasmoe.model.checkpoint.json_file import quoted

_BYTES, _PIECES = "gpt2", "llama"  # kinds of vocabularies, by `tokenizer.ggml.model`
# how texts are split before bytes are merged, as llama.cpp's `llama-vocab.cpp` has it: names that transformers' table
# lacks, to those that mean the same; None is what its converter does anyway, GPT-2's split
_SPLITS = {"gpt-2": None, "olmo": None, "glm4": "llama-bpe"}
_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_PREFIX = "tokenizer."


def tokenizer_of(header: GgufHeader) -> PreTrainedTokenizerFast:
    """The tokenizer of a file, with its chat template.

    Raises `UnsupportedModel` for a kind of tokenizer that is not known, `CheckpointError` for a malformed one.
    """
    values = _named(header.metadata, "tokenizer")
    tokens = _tokens(header, values)
    settings = _named(header.metadata, "tokenizer_config")
    if not isinstance(settings.get("chat_template"), str | None):
        raise CheckpointError(f"{header.file}: tokenizer.chat_template is no text")
    if values["tokenizer_type"] == _PIECES:
        settings.setdefault("add_bos_token", True)  # llama.cpp's, for files that do not say
    for name, key in _SPECIAL.items():
        settings[name] = _token(header, f"tokenizer.ggml.{key}", tokens)
    try:
        backend, more = convert_gguf_tokenizer(str(header.metadata["general.architecture"]), values)
        return PreTrainedTokenizerFast(tokenizer_object=backend, **settings, **more)
    except Exception as error:  # whatever the converter runs into
        raise CheckpointError(f"{header.file} holds no usable tokenizer: {brief(error)}") from error


def save_tokenizer(header: GgufHeader, folder: Path) -> None:
    """Write the files of a file's tokenizer to `folder`. Raises as `tokenizer_of`."""
    tokenizer_of(header).save_pretrained(folder)


def _named(metadata: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Values of the metadata by the names that transformers' converter gives them, arrays as lists."""
    return {
        name: value.tolist() if hasattr(value, "tolist") else value
        for key, name in GGUF_TOKENIZER_MAPPING[group].items()
        if (value := metadata.get(_PREFIX + key)) is not None
    }


def _tokens(header: GgufHeader, values: dict[str, Any]) -> list[str]:
    """The vocabulary; `values` are made fit for the converter."""
    kind, tokens = values.get("tokenizer_type"), values.get("tokens")
    if kind not in (_BYTES, _PIECES):
        raise UnsupportedModel(
            f"{header.file}: tokenizer.ggml.model is {quoted(kind)}: {_BYTES} and {_PIECES} are served"
        )
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or not tokens:
        raise CheckpointError(f"{header.file}: tokenizer.ggml.tokens is no list of texts")
    split = values.get("pre_tokenizer_type")
    if kind == _BYTES and split not in GGUF_PRE_TOKENIZER_SPLITS:
        if split not in _SPLITS:
            raise UnsupportedModel(
                f"{header.file}: tokenizer.ggml.pre is {quoted(split)}, and how such a tokenizer splits texts is not "
                f"known; {', '.join(sorted([*GGUF_PRE_TOKENIZER_SPLITS, *_SPLITS]))} are"
            )
        values["pre_tokenizer_type"] = _SPLITS[split]
    for key in ("scores", "token_type"):
        if key in values and len(values[key]) != len(tokens):
            raise CheckpointError(
                f"{header.file}: tokenizer.ggml.{key} has {len(values[key])} entries for {len(tokens)} tokens"
            )
    return tokens


def _token(header: GgufHeader, key: str, tokens: list[str]) -> str | None:
    number = header.metadata.get(key)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < len(tokens):
        raise CheckpointError(
            f"{header.file}: {key} is {quoted(number)}: must be below {len(tokens)}, the vocabulary"
        )
    return tokens[number]
