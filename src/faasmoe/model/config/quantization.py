"""The format that a config declares for the weights of its checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from faasmoe.errors import UnsupportedModel
from faasmoe.experts.formats import REGISTERED, registry
from faasmoe.model.checkpoint.json_file import quoted, read_json
from faasmoe.model.config.facts import LARGEST_CONFIG

_DETAILS = ("format", "fmt", "quant_algo", "weight_block_size", "bits")  # that tell formats of one method apart
_BESIDE = {"quantize_config.json": "gptq", "hf_quant_config.json": "modelopt"}  # files to methods
_KEYS = ("quantization_config", "compression_config")  # the other is compressed-tensors' older name


def declare_beside(folder: Path, config: PretrainedConfig) -> None:
    """Let `config` declare what a file beside it does, as AutoGPTQ and ModelOpt write it, unless it declares a format.

    Raises `CheckpointError` if such a file cannot be read.
    """
    if any(part.get(key) is not None for part in _parts(config) for key in _KEYS):
        return
    for name, method in _BESIDE.items():
        if (file := folder / name).is_file():
            settings = read_json(file, LARGEST_CONFIG)
            inner = settings.get("quantization")
            config.quantization_config = {
                "quant_method": method,
                **(inner if isinstance(inner, dict) else settings),
            }
            return


def quantization_of(name: str, config: PretrainedConfig) -> Mapping[str, Any]:
    """The settings with which the config of an architecture `name` declares a weight format; empty if it declares none.

    Raises `UnsupportedModel` if the config or a part of it declares what no registered format reads, or parts of it
    declare different formats.
    """
    found: Mapping[str, Any] = {}
    for part in _parts(config):
        for declared in (part[key] for key in _KEYS if part.get(key) is not None):
            settings = declared if isinstance(declared, dict) else getattr(declared, "__dict__", {})
            if registry.declared(settings) is None:
                method = quoted(settings.get("quant_method", "an unknown method"))
                how = "".join(
                    f", {key} {quoted(settings[key])}" for key in _DETAILS if settings.get(key) is not None
                )
                raise UnsupportedModel(
                    f"{name}: the checkpoint is quantized with {method}{how}, which no weight format reads "
                    f"({', '.join(REGISTERED)} are read)"
                )
            if found and settings != found:
                raise UnsupportedModel(f"{name}: the config declares several formats of quantized weights")
            found = settings
    return found


def without_quantization(config: PretrainedConfig) -> PretrainedConfig:
    """A copy of a config that declares no format: transformers would put quantized modules in the place of its own."""
    plain = copy.deepcopy(config)
    for part in list(_parts(plain)):
        for key in _KEYS:
            part.pop(key, None)
    return plain


def _parts(config: PretrainedConfig | dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The values of a config and of all of its parts, also of parts that its class holds as dictionaries."""
    own = config if isinstance(config, dict) else vars(config)
    yield own
    for part in own.values():
        if isinstance(part, dict | PretrainedConfig):
            yield from _parts(part)
