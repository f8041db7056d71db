"""Which types of models in the installed transformers have routed experts, found by their configs."""

from __future__ import annotations

from collections.abc import Iterator

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)


def causal_types() -> list[str]:
    """Types of causal language models; a few of them also see or hear."""
    return _with_experts(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def wrapper_types() -> list[str]:
    """Types that transformers maps as models of images, sound and text."""
    return _with_experts(MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES)


def open_wrapper_types() -> list[str]:
    """Such types whose config takes the config of any language model, which may have experts."""
    of_their_own = set(wrapper_types())
    return [
        name
        for name in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
        if CONFIG_MAPPING[name].sub_configs.get("text_config") is AutoConfig and name not in of_their_own
    ]


def encoder_decoder_types() -> list[str]:
    """Types of encoder and decoder."""
    wrappers = set(wrapper_types())
    return [name for name in _with_experts(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES) if name not in wrappers]


def _with_experts(names: object) -> list[str]:
    assert isinstance(names, dict)
    return [name for name in names if (config := _default(name)) is not None and routes(config)]


def routes(config: PretrainedConfig) -> bool:
    """Whether a config, or a part of it, knows of experts, if there may be none by default."""
    return any("expert" in key or "moe" in key for key in _of(config))


def _default(model_type: str) -> PretrainedConfig | None:
    try:
        return CONFIG_MAPPING[model_type]()
    except Exception:  # noqa: BLE001 - an assistant to another model: it has no sizes of its own
        return None


def _of(config: PretrainedConfig) -> Iterator[str]:
    for key, value in vars(config).items():
        if isinstance(value, PretrainedConfig):
            yield from _of(value)
        elif not key.startswith("_"):  # such as the implementation of experts, which all have
            yield key
