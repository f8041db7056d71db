"""transformers' table of checkpoint conversions: which tensors of a checkpoint make up which parameter of a model."""

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

__all__ = [
    "Concatenate",
    "MergeModulelist",
    "Transpose",
    "WeightConverter",
    "WeightRenaming",
    "dot_natural_key",
    "get_model_conversion_mapping",
    "rename_source_key",
    "revert_weight_conversion",
]
