"""transformers' table of checkpoint conversions: which tensors of a checkpoint make up which parameter of a model."""

from __future__ import annotations

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    Transpose,
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
    revert_weight_conversion,
)

from faasmoe.model.adapter.stacked_experts import renamed_tensors

__all__ = [
    "Concatenate",
    "MergeModulelist",
    "Transpose",
    "WeightConverter",
    "WeightRenaming",
    "conversions_of",
    "dot_natural_key",
    "rename_source_key",
    "revert_weight_conversion",
]


def conversions_of(model: PreTrainedModel) -> list[WeightConverter | WeightRenaming]:
    """The table for `model`, and what adapters have renamed in it."""
    renamed = renamed_tensors(model)
    own = [WeightRenaming(source_patterns=name, target_patterns=target) for name, target in renamed.items()]
    return [*get_model_conversion_mapping(model), *own]
