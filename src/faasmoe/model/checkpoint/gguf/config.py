"""The config in a GGUF file's metadata, as transformers' classes read it. Without torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.model.checkpoint.gguf.architectures import ARCHITECTURES, GgufArchitecture
from faasmoe.model.checkpoint.gguf.header import GgufHeader
from faasmoe.model.checkpoint.json_file import quoted

END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""Keys of the metadata, after `tokenizer.ggml.`, for the tokens after which a text is over."""

_SCALING = {  # `rope.scaling` to `rope_parameters`
    "factor": "factor",
    "original_context_length": "original_max_position_embeddings",
    "attn_factor": "attention_factor",
    "yarn_beta_fast": "beta_fast",
    "yarn_beta_slow": "beta_slow",
}
_SCALINGS = {"none": "default", "linear": "linear", "yarn": "yarn"}
_ROPE_THETA = 10000.0  # llama.cpp's, if the file does not say
_NEEDLESS = {"vocab_size", "rope.scaling.finetuned"}  # the embedding tells the former


def architecture_of(header: GgufHeader) -> GgufArchitecture:
    """The architecture that a file names. Raises `UnsupportedModel` if it is not served, `CheckpointError` for none."""
    name = header.metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(f"{header.file} names no architecture (general.architecture)")
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{header.file}: GGUF files of the architecture {quoted(name)} are not served; those of "
            f"{', '.join(ARCHITECTURES)} are"
        )
    if not header.metadata.get(f"{name}.expert_count"):
        raise UnsupportedModel(
            f"{header.file}: {name} is a dense model here, without {name}.expert_count, and only Mixture-of-Experts "
            "models are served"
        )
    return ARCHITECTURES[name]


def config_of(header: GgufHeader) -> dict[str, Any]:
    """The content of a config.json for a file.

    Raises `UnsupportedModel` for an architecture, a key or a value that is not known, `CheckpointError` if what every
    file has is missing.
    """
    return _Reading(header).config()


def end_tokens_of(header: GgufHeader) -> list[int]:
    """Ids of the tokens after which a text is over, in order."""
    found = (header.metadata.get(f"tokenizer.ggml.{key}") for key in END_TOKENS)
    return sorted({token for token in found if type(token) is int})


class _Reading:
    """A file whose metadata become a config: each key of its architecture is used, or refused."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        self._architecture = architecture_of(header)
        self._prefix = f"{header.metadata['general.architecture']}."
        self._left = {
            key.removeprefix(self._prefix) for key in header.metadata if key.startswith(self._prefix)
        } - _NEEDLESS

    def config(self) -> dict[str, Any]:
        architecture, tensors = self._architecture, {tensor.name: tensor for tensor in self._header.tensors}
        if "token_embd.weight" not in tensors:
            raise CheckpointError(f"{self._header.file} holds no tensor token_embd.weight")
        found: dict[str, Any] = {
            "model_type": architecture.model_type,
            "vocab_size": tensors["token_embd.weight"].shape[0],
            "tie_word_embeddings": "output.weight" not in tensors,
            "num_hidden_layers": self._needed("block_count") - (self._value("nextn_predict_layers") or 0),
            **architecture.fixed,
        }
        for key, name in architecture.keys.items():
            if (value := self._value(key)) is not None and found.setdefault(name, value) != value:
                raise self._unknown(key, f"other files have the same as for {name}, {found[name]}")
        for name, part in ((architecture.biased, "attn_q.bias"), (architecture.normed, "attn_q_norm.weight")):
            if name:
                found[name] = f"blk.0.{part}" in tensors
        head = found.get("head_dim") or self._needed("embedding_length") // self._needed("attention.head_count")
        found["rope_parameters"] = dict(self._rope(head, found))
        self._check(head)
        return found

    def _rope(self, head: int, config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """`rope_parameters`; what else the config has to say of them goes into `config`."""
        yield "rope_theta", self._value("rope.freq_base") or _ROPE_THETA
        turned, key = self._value("rope.dimension_count"), self._architecture.rotary
        if turned is not None and turned != head and not key:
            raise self._unknown("rope.dimension_count", f"{head} is served, the size of a head")
        if key == "rotary_dim":
            config[key] = turned or head
        elif key:
            yield key, (turned or head) / head
        scaling = {name: self._value(f"rope.scaling.{key}") for key, name in _SCALING.items()}
        kind = self._raw("rope.scaling.type") or "none"
        if not isinstance(kind, str) or kind not in _SCALINGS:
            raise self._unknown("rope.scaling.type", f"{', '.join(_SCALINGS)} are served")
        yield "rope_type", _SCALINGS[kind]
        if kind != "none":
            yield from ((name, value) for name, value in scaling.items() if value is not None)
        if kind == "yarn" and self._architecture.model_type == "gpt_oss":
            yield "truncate", False  # as its authors have it; the file does not say

    def _check(self, head: int) -> None:
        """Refuse what is left: it may change what the model computes."""
        known: dict[str, set[int]] = {
            "attention.value_length": {head},
            "attention.causal": {1},
            "expert_gating_func": {self._architecture.gating},
            "expert_shared_count": {0},
            "expert_group_count": {0, 1},
            "expert_group_used_count": {0, 1},
        }
        for key in sorted(self._left):
            if key not in known:
                raise self._unknown(key, "this key is not known")
            if self._value(key) not in known[key]:
                raise self._unknown(key, f"{max(known[key])} is served")

    def _needed(self, key: str) -> int:
        value = self._value(key)
        if type(value) is not int or value < 1:
            raise CheckpointError(
                f"{self._header.file}: {self._prefix}{key} is {quoted(value)}: must be a number above 0"
            )
        return value

    def _value(self, key: str) -> Any:
        """A number, or None; of an array for all layers the number that all have."""
        value = self._raw(key)
        if isinstance(value, str | list):
            raise CheckpointError(f"{self._header.file}: {self._prefix}{key} is {quoted(value)}: must be a number")
        if not isinstance(value, np.ndarray):
            return value
        if len(different := np.unique(value)) != 1:
            raise self._unknown(key, "layers that differ are not served")
        return different[0].item()

    def _raw(self, key: str) -> Any:
        self._left.discard(key)
        return self._header.metadata.get(self._prefix + key)

    def _unknown(self, key: str, known: str) -> UnsupportedModel:
        value = self._header.metadata.get(self._prefix + key)
        shown = value.tolist()[:8] if isinstance(value, np.ndarray) else value
        return UnsupportedModel(f"{self._header.file}: {self._prefix}{key} is {quoted(shown)}: {known}")
