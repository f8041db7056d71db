"""What a sequence of a model will keep, before any weight is loaded: a token runs on the meta device."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from faasmoe.errors import UnsupportedModel, brief
from faasmoe.model.adapter.classes import built_on_meta, quiet
from faasmoe.model.adapter.light_import import without_compiler
from faasmoe.model.adapter.unregistered_experts import run_by
from faasmoe.model.architecture import Architecture
from faasmoe.model.dense.attention import FlatRow
from faasmoe.model.dense.dense import EXPERTS_NAME
from faasmoe.model.dense.indexed import indexer
from faasmoe.model.dense.latent import expansions
from faasmoe.model.dense.recurrent.layer_form import specs_of
from faasmoe.model.dense.state_probe import StateProbe
from faasmoe.model.state.sequence_state import StateSpec


@torch.inference_mode()
def rehearse(architecture: Architecture, dtype: torch.dtype) -> StateSpec:
    """The kinds of state that a sequence keeps if the model computes in `dtype`.

    Raises `UnsupportedModel` if a layer keeps something that is not served, or if the token cannot be run.
    """
    quiet()
    model = built_on_meta(architecture.model_class, deepcopy(architecture.config)).to("meta", dtype).eval()
    row = FlatRow()
    expansions.take_over(model)
    indexer.take_over(model, row)
    row.attach(model)
    model.set_experts_implementation(EXPERTS_NAME)
    for experts in architecture.experts:
        model.get_submodule(experts.name).__dict__["routed"] = _no_experts
    run_by(model, lambda module, *routed: module.routed(*routed))
    try:
        text = model.get_submodule(architecture.part.name)
        with without_compiler(), torch.device("meta"), StateProbe(architecture, model, text, row) as probe:
            probe.run_token()
            found = probe.recurrent()
            for each, spec in zip(found, specs_of(found), strict=True):
                row.note_state(each.name, spec)
    except UnsupportedModel:
        raise
    except Exception as error:  # model classes raise whatever their code runs into
        raise UnsupportedModel(f"{architecture.name}: one token cannot be run: {brief(error)}") from error
    return StateSpec(row.kinds)


def _no_experts(hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    return torch.zeros_like(hidden)
