"""Checks of options against config.json alone, before torch is imported and anything starts.

Only values that a config spells out are used. The model's classes, which know the defaults and decide, are asked later
(`model.architecture`), and refuse in the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faasmoe.errors import OptionError, UserError
from faasmoe.experts.formats import conversions
from faasmoe.model.checkpoint.folder import config_file
from faasmoe.model.checkpoint.json_file import read_json
from faasmoe.model.config.rope import RopeScaling

DTYPES = ("auto", "float32", "bfloat16")

LARGEST_CONFIG = 4 << 20  # bytes of config.json
# how configs call the number of a layer's routed experts
_EXPERTS = frozenset({"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"})
# These rotary embeddings change with the longest sequence in a step, once it is longer than the original context.
_ROPE_BY_LENGTH = frozenset({"dynamic", "longrope"})


@dataclass(frozen=True)
class ConfigFacts:
    """Sizes that a config spells out; None for those that it leaves to its class."""

    experts: int | None = None  # of the layer that has most
    context: int | None = None  # tokens of a sequence

    @classmethod
    def of(cls, config: Mapping[str, Any], scaling: RopeScaling | None = None) -> ConfigFacts:
        """The facts in the content of a config."""
        part = config.get("text_config")
        text = part if isinstance(part, Mapping) else config
        experts = max(_experts(text), default=None)
        positions = text.get("max_position_embeddings")
        if type(positions) is not int or positions < 1:
            return cls(experts)
        if scaling is not None:
            return cls(experts, scaling.context(positions))
        return cls(experts, context_of(positions, text.get("rope_parameters") or text.get("rope_scaling")))

    @classmethod
    def read(cls, folder: Path, scaling: RopeScaling | None = None) -> ConfigFacts:
        """The facts in a checkpoint's config.json; none if it cannot be read, which `read_config` reports.

        With `scaling` the context is what that makes of it.
        """
        try:
            return cls.of(read_json(config_file(folder), LARGEST_CONFIG), scaling)
        except UserError:
            return cls()

    def check(
        self,
        block_size: int | None = None,
        max_model_len: int | None = None,
        max_tokens: int = 0,
        option: str = "--max-tokens",
    ) -> None:
        """Raises `OptionError` for values that the model cannot have. `max_tokens` is that of the option `option`."""
        if block_size is not None and self.experts is not None:
            check_block_size(block_size, self.experts)
        if self.context is None:
            return
        if max_model_len is not None:
            check_context(max_model_len, self.context)
        most = max_model_len or self.context
        if max_tokens >= most:
            raise OptionError(f"{option} {max_tokens}: must be less than {most}, which is for prompt and answer")


def check_types(dtype: str, quantize: str | None) -> None:
    """Raises `OptionError` if a type is unknown, or the two cannot be combined."""
    if dtype not in DTYPES:
        raise OptionError(f"--dtype {dtype}: must be {', '.join(DTYPES)}")
    if quantize is not None and quantize not in conversions():
        raise OptionError(f"--quantize {quantize}: must be {', '.join(conversions())}, or not be given")
    if quantize and dtype == "float32":
        raise OptionError(f"--dtype float32: {quantize} weights compute in bfloat16; leave out one of the options")


def check_block_size(asked: int, experts: int) -> None:
    """Raises `OptionError` if `asked` is not 1 to `experts`, the experts of a layer."""
    if not 1 <= asked <= experts:
        raise OptionError(f"--block-size {asked}: must be 1 to {experts}, the experts of a layer")


def check_context(asked: int, context: int) -> None:
    """Raises `OptionError` if `asked` is not 2 to `context`, the tokens that the model was made for."""
    if not 2 <= asked <= context:
        raise OptionError(f"--max-model-len {asked}: must be 2 to {context}, the model's context")


def context_of(positions: int, rope: Any) -> int:
    """The most tokens of a sequence: the original context, if rotary embeddings would change beyond it."""
    limits = [positions]
    rope = rope if isinstance(rope, Mapping) else {}
    for entry in [rope, *(value for value in rope.values() if isinstance(value, Mapping))]:
        original = entry.get("original_max_position_embeddings")
        if entry.get("rope_type") in _ROPE_BY_LENGTH and original:
            limits.append(int(original))
    return min(limits)


def _experts(config: Mapping[str, Any]) -> Iterator[int]:
    for name in _EXPERTS & config.keys():
        value = config[name]
        for count in value if isinstance(value, list) else [value]:
            if type(count) is int and count > 0:
                yield count
