"""A model class that is built without the weights that are loaded from elsewhere, or by functions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from faasmoe.model.adapter.light_import import without_values


def hollow_class(
    model_class: type[PreTrainedModel], is_experts: Callable[[nn.Module], bool], linears: Collection[str]
) -> type[PreTrainedModel]:
    """A subclass whose experts modules hold empty parameters, and the linear layers named empty weights.

    It has the name of `model_class`, because transformers finds checkpoint conversions by it.
    """

    def init(self: PreTrainedModel, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        with without_values():
            model_class.__init__(self, config, *args, **kwargs)
        for module in filter(is_experts, self.modules()):
            for name in module._parameters:
                module._parameters[name] = _empty()
        for linear in linears:
            self.get_submodule(linear)._parameters["weight"] = _empty()

    body = {"__init__": init, "__module__": model_class.__module__}
    return type(model_class.__name__, (model_class,), body)


def _empty() -> nn.Parameter:
    return nn.Parameter(torch.empty(0, device="cpu"), requires_grad=False)
