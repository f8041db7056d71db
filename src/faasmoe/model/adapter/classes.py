"""transformers' model classes: found by their config, built without weights, loaded without some of their weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging as transformers_logging

from faasmoe.model.adapter.language_part import leave_out
from faasmoe.model.adapter.light_import import without_values
from faasmoe.model.adapter.unregistered_experts import adapt

# biases by which these choose experts: published in float32, which transformers rounds if the model is in bfloat16
_WIDE_BIASES = {
    "afmoe": ("expert_bias",),
    "laguna": ("e_score_correction_bias",),
    "minimax_m2": ("e_score_correction_bias",),
}


def causal_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The class of a causal language model with such a config; None: transformers has none."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    found: type[PreTrainedModel] = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return found


def built_on_meta(model_class: type[PreTrainedModel], config: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device, where tensors have no memory. Raises any exception of its class."""
    with without_values():
        model = model_class(config)
    adapt(model)
    model.tie_weights(recompute_mapping=False)  # the other half of transformers' `init_weights`
    return model


def quiet() -> None:
    """Have transformers tell errors alone."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def load(
    model_class: type[PreTrainedModel], config: PretrainedConfig, tensors: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[PreTrainedModel, set[str]]:
    """A model with the tensors of a checkpoint, and the names of the weights that it lacks.

    Tensors are copied only if their dtype or layout must change. Raises any exception of transformers' conversions,
    also for tensors of the wrong shape.
    """
    quiet()  # what is missing is said by the caller
    model, report = model_class.from_pretrained(
        None,
        config=config,
        state_dict=dict(tensors),
        dtype=dtype,
        output_loading_info=True,
        trust_remote_code=False,
    )
    return model, set(report["missing_keys"])


def optional_weights(model: PreTrainedModel) -> Sequence[str]:
    """Patterns of names that a checkpoint need not have."""
    return tuple(model._keys_to_ignore_on_load_missing or ())


def ignored_tensors(model: PreTrainedModel) -> Sequence[str]:
    """Patterns of tensors in a checkpoint that the class leaves out."""
    return tuple(model._keys_to_ignore_on_load_unexpected or ())


def hollow_class(
    model_class: type[PreTrainedModel],
    is_hollow: Callable[[nn.Module], bool],
    linears: Collection[str],
    absent: tuple[str, ...] = (),
) -> type[PreTrainedModel]:
    """A subclass whose modules `is_hollow` hold empty parameters, and the linear layers named empty weights.

    The modules `absent` are not there, and biases of routers stay in float32 where transformers rounds them.

    It has the name of `model_class`, because transformers finds checkpoint conversions by it.
    """

    def init(self: PreTrainedModel, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        with without_values():
            model_class.__init__(self, config, *args, **kwargs)
        leave_out(self, absent)
        adapt(self)
        for module in filter(is_hollow, self.modules()):
            for name, _ in list(module.named_parameters(recurse=False)):
                setattr(module, name, _empty())
        for linear in linears:
            self.get_submodule(linear).weight = _empty()

    def initialize(self: PreTrainedModel) -> None:
        for module in self.modules():  # some classes write to loaded weights, which may be a read-only map
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own and all(getattr(tensor, "_is_hf_initialized", False) for tensor in own):
                module._is_hf_initialized = True
        model_class.initialize_weights(self)

    wide = (
        *(model_class._keep_in_fp32_modules_strict or ()),
        *_WIDE_BIASES.get(model_class.config_class.model_type, ()),
    )
    body = {
        "__init__": init,
        "initialize_weights": initialize,
        "__module__": model_class.__module__,
        "_keep_in_fp32_modules_strict": list(wide),
    }
    return type(model_class.__name__, (model_class,), body)


def _empty() -> nn.Parameter:
    return nn.Parameter(torch.empty(0, device="cpu"), requires_grad=False)
