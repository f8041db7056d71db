"""Rotary embeddings that are scaled by an option, where a model's card tells people to edit its config. Without torch.

The option is that of vLLM, `--rope-scaling`, and its content what transformers reads as `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faasmoe.errors import OptionError
from faasmoe.model.checkpoint.json_file import parse_json, quoted

_OPTION = "--rope-scaling"
_YARN = ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate")
# beside `factor` and `rope_theta`; rotary embeddings of other kinds change with the length of a sequence
_SETTINGS = {"linear": (), "yarn": ("original_max_position_embeddings", *_YARN)}
_LONGEST = 1 << 28  # tokens; as `model.config.sizes` has it


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary embeddings are scaled instead of as the config says."""

    kind: str  # `rope_type` of transformers
    factor: float
    original: int | None  # tokens that the model was made for; None: those of the config
    settings: Mapping[str, Any]  # for transformers' `rope_parameters`

    @classmethod
    def parse(cls, text: str) -> RopeScaling:
        """The option's content. Raises `OptionError` if it is none."""
        try:
            given = parse_json(text, strict=True)
        except ValueError as error:
            raise OptionError(f"{_OPTION} {quoted(text)}: is not JSON: {error}") from error
        if not isinstance(given, dict):
            raise OptionError(f"{_OPTION} {quoted(text)}: must be a JSON object with rope_type and factor")
        settings = {("rope_type" if key == "type" else key): value for key, value in given.items()}
        kind = settings.get("rope_type")
        if not isinstance(kind, str) or kind not in _SETTINGS:
            raise OptionError(f"{_OPTION}: rope_type is {quoted(kind)}: must be {' or '.join(_SETTINGS)}")
        for key, value in settings.items():
            if key not in {"rope_type", "factor", "rope_theta", *_SETTINGS[kind]}:
                raise OptionError(f"{_OPTION}: {kind} has no {quoted(key)}")
            if key not in {"rope_type", "truncate"} and not _positive(value):
                raise OptionError(f"{_OPTION}: {key} is {quoted(value)}: must be a number above 0")
        if settings.get("factor", 0) < 1:
            raise OptionError(f"{_OPTION}: factor is {quoted(settings.get('factor'))}: must be 1 or more")
        original = settings.get("original_max_position_embeddings")
        return cls(kind, float(settings["factor"]), None if original is None else int(original), settings)

    def context(self, positions: int) -> int:
        """The most tokens of a sequence, for a model whose config says `positions`."""
        return min(int((self.original or positions) * self.factor), _LONGEST)


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf
