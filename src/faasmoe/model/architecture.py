"""The transformers class that runs a checkpoint, and a check that it can be served in blocks.

Nothing here knows model names. A model can be served if transformers dispatches its experts through
`ALL_EXPERTS_FUNCTIONS` (`use_experts_implementation` leaves flags on such modules) and its attention through
`ALL_ATTENTION_FUNCTIONS`, and if its experts compute something that `experts.expert` can name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel

import faasmoe
from faasmoe.errors import UnsupportedModel, brief
from faasmoe.experts.expert import ExpertForm
from faasmoe.model.adapter.classes import built_on_meta, causal_class
from faasmoe.model.adapter.experts import is_experts
from faasmoe.model.adapter.language_part import LanguagePart, language_part, leave_out, multimodal_class
from faasmoe.model.adapter.registries import dispatches_attention, use_eager
from faasmoe.model.checkpoint.folder import config_file
from faasmoe.model.checkpoint.json_file import quoted, read_json
from faasmoe.model.config.facts import LARGEST_CONFIG, context_of
from faasmoe.model.config.quantization import declare_beside, quantization_of, without_quantization
from faasmoe.model.config.rope import RopeScaling
from faasmoe.model.config.sizes import check_sizes
from faasmoe.model.expert_form import recognise

_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "top_k_experts")


@dataclass(frozen=True)
class ExpertsModule:
    """The routed experts of one layer, as a module of the model on the meta device."""

    name: str  # of the module, e.g. model.layers.3.mlp.experts
    layer: int
    form: ExpertForm
    parameters: dict[str, tuple[int, ...]]  # shapes, without the module's name

    @property
    def num_experts(self) -> int:
        """E of this layer."""
        return self.parameters["down_proj"][0]

    @property
    def hidden_size(self) -> int:
        """H: the width of the rows that these experts get."""
        return self.parameters["down_proj"][2 if self.form.transposed else 1]


@dataclass(frozen=True)
class Architecture:
    """A model's classes and geometry, without any weight."""

    config: PretrainedConfig
    model_class: type[PreTrainedModel]
    meta_model: PreTrainedModel
    experts: tuple[ExpertsModule, ...]
    quantization: Mapping[str, Any] = field(default_factory=dict)  # by which the config declares a weight format
    part: LanguagePart = field(default_factory=LanguagePart)  # through which text goes

    @property
    def name(self) -> str:
        """transformers' name of the model type, e.g. qwen2_moe."""
        return str(self.config.model_type)

    @property
    def text_config(self) -> PretrainedConfig:
        """The config of the language model: of models that also see or hear, a part of theirs."""
        return self.config.get_text_config()

    @property
    def context_length(self) -> int:
        """The most tokens of a sequence; 2,048 if the config does not say.

        It is the original context, if rotary embeddings would change beyond that, and a chunk, if layers see no further
        (`attention_chunk_size`): within the first chunk they see all.
        """
        positions = int(getattr(self.text_config, "max_position_embeddings", None) or 2048)
        if "chunked_attention" in (getattr(self.text_config, "layer_types", None) or ()):
            positions = min(positions, int(self.text_config.attention_chunk_size or positions))
        return context_of(positions, getattr(self.text_config, "rope_parameters", None))


def read_config(folder: Path, scaling: RopeScaling | None = None) -> PretrainedConfig:
    """The model's config, with rotary embeddings by `scaling`. Raises `CheckpointError` or `UnsupportedModel`.

    Code that comes with a checkpoint is never run, even if its config names some.
    """
    file = config_file(folder)
    plain = read_json(file, LARGEST_CONFIG)
    check_sizes(file, plain)
    name = plain.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        raise _unknown(file, name, plain)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # config classes raise whatever their validation uses
        raise UnsupportedModel(f"{file} cannot be read: {brief(error)}") from error
    use_eager(config)
    declare_beside(folder, config)
    if scaling is not None:
        _scale(config, scaling)
    return config


def _scale(config: PretrainedConfig, scaling: RopeScaling) -> None:
    """Raises `UnsupportedModel` if there are no rotary embeddings, or several, or transformers does not take these."""
    text = config.get_text_config()
    own, positions = getattr(text, "rope_parameters", None), getattr(text, "max_position_embeddings", None)
    if not isinstance(own, dict) or "rope_theta" not in own or type(positions) is not int:
        raise UnsupportedModel(
            f"{config.model_type}: --rope-scaling is for models with one rotary embedding, and its config has "
            f"{'several' if own else 'none'}"
        )
    kept = {key: own[key] for key in ("rope_theta", "partial_rotary_factor") if key in own}
    text.rope_parameters = {**kept, **scaling.settings}
    if scaling.kind == "yarn":
        text.rope_parameters.setdefault("original_max_position_embeddings", positions)
    text.max_position_embeddings = scaling.context(positions)


def _unknown(file: Path, name: object, config: Mapping[str, Any]) -> UnsupportedModel:
    own = ", and code that comes with a checkpoint is never run" if "auto_map" in config else ""
    made = config.get("transformers_version")
    by = f"; the checkpoint was written by transformers {quoted(made)}" if isinstance(made, str) else ""
    return UnsupportedModel(
        f"{file}: the installed transformers {transformers.__version__} does not know the architecture "
        f"(model_type) {quoted(name)}{own}, so FaaSMoE {faasmoe.__version__} cannot serve it{by}"
    )


def layers_of(config: PretrainedConfig) -> int:
    """The number of layers that a config announces, in the part that has most."""
    parts = [config, *(part for part in vars(config).values() if isinstance(part, PretrainedConfig))]
    counts = [getattr(part, "num_hidden_layers", 0) for part in parts]
    return max(count for count in [0, *counts] if isinstance(count, int))


def inspect_architecture(config: PretrainedConfig) -> Architecture:
    """Build the model on the meta device and find its experts.

    Raises `UnsupportedModel`, naming the architecture and the obstacle.
    """
    name = config.model_type
    quantization = quantization_of(name, config)
    if quantization:
        config = without_quantization(config)
    try:
        text_config = config.get_text_config()
    except Exception as error:  # there may be several
        raise UnsupportedModel(
            f"{name}: which part of it is the language model is not clear: {brief(error)}"
        ) from error
    model_class, config = _class_of(name, config, text_config)
    meta_model, part = _built(name, model_class, config)
    _check_attention(name, type(meta_model.get_submodule(part.name)))
    experts = tuple(_find_experts(name, meta_model))
    if not experts:
        raise _no_experts(name, model_class.__name__, config)
    _check_top_k(name, config, experts)
    if len({e.layer for e in experts}) != len(experts):
        raise UnsupportedModel(f"{name}: has several sets of experts in one layer, which is not served yet")
    return Architecture(config, model_class, meta_model, experts, quantization, part)


def _class_of(
    name: str, config: PretrainedConfig, text_config: PretrainedConfig
) -> tuple[type[PreTrainedModel], PretrainedConfig]:
    """The class that reads the checkpoint, and its config: with towers, if the checkpoint has some."""
    wrapper, causal = multimodal_class(config), causal_class(config)
    if wrapper is not None and (causal is None or text_config is not config):
        return wrapper, config
    if causal is None:
        raise UnsupportedModel(f"{name}: transformers has no causal language model of this type")
    if causal.config_class is type(text_config):  # as AutoModelForCausalLM does
        return causal, text_config
    return causal, config


def _built(
    name: str, model_class: type[PreTrainedModel], config: PretrainedConfig
) -> tuple[PreTrainedModel, LanguagePart]:
    try:
        model = built_on_meta(model_class, config)
        part = language_part(model)
    except LookupError as error:
        raise UnsupportedModel(f"{name}: which part of it is the language model is not clear: {error}") from error
    except Exception as error:  # model classes raise whatever their code runs into
        raise UnsupportedModel(f"{name}: transformers cannot build it: {brief(error)}") from error
    leave_out(model, part.absent)
    return model, part


def _no_experts(name: str, model_class: str, config: PretrainedConfig) -> UnsupportedModel:
    if _counts_experts(config.get_text_config().to_dict()):
        return UnsupportedModel(
            f"{name} is not a Mixture-of-Experts model that transformers dispatches through its registry "
            f"of experts: {model_class} has no such module"
        )
    return UnsupportedModel(
        f"{name} is a dense model: {model_class} has no routed experts, and only Mixture-of-Experts models are served"
    )


def _counts_experts(sizes: Mapping[str, Any]) -> bool:
    """Whether a config, or a part of it (DBRX's `ffn_config`), has several experts."""
    return any(
        _counts_experts(value)
        if isinstance(value, Mapping)
        else "expert" in str(key) and type(value) is int and value > 1
        for key, value in sizes.items()
    )


def _check_top_k(name: str, config: PretrainedConfig, experts: Sequence[ExpertsModule]) -> None:
    most = max(module.num_experts for module in experts)
    for key in _TOP_K:
        value = getattr(config.get_text_config(), key, None)
        for count in value if isinstance(value, list) else [] if value is None else [value]:
            if type(count) is not int or not 1 <= count <= most:
                raise UnsupportedModel(
                    f"{name}: {key} is {quoted(count)} in its config: must be 1 to {most}, the experts of a layer"
                )


def _find_experts(architecture: str, model: PreTrainedModel) -> Iterator[ExpertsModule]:
    for name, module in model.named_modules():
        if is_experts(module):
            numbers = re.findall(r"\.(\d+)(?=\.)", f".{name}")
            shapes = {key: tuple(value.shape) for key, value in module.named_parameters()}
            form = recognise(architecture, module)
            yield ExpertsModule(name, int(numbers[-1]) if numbers else 0, form, shapes)


def _check_attention(name: str, model_class: type[PreTrainedModel]) -> None:
    if not dispatches_attention(model_class):
        raise UnsupportedModel(f"{name}: its attention does not go through transformers' registry")
