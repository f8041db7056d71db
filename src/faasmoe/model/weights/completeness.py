"""A check that the tensors of a checkpoint are those of the model: none is missing, and none is left over.

transformers only warns of either. But a missing weight would be random, and a tensor for which a module has no place
(a scale, a bias, an expert's norm) would have changed what the module computes.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from fnmatch import fnmatch

from faasmoe.errors import CheckpointError
from faasmoe.model.adapter.classes import ignored_tensors, optional_weights
from faasmoe.model.architecture import Architecture
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.weights.layout import Layout

log = logging.getLogger(__name__)

# how formats that no registered one recognises name the arrays of quantized weights
_QUANTIZED = ("*scale*", "*.qweight", "*.qzeros", "*.g_idx", "*zero_point*", "*.absmax", "*.quant_map", "*.SCB",
              "*.quant_state*", "*.weight_packed", "*.weight_shape", "*_blocks", "*.qdata")  # fmt: skip
# buffers that older versions of transformers stored, and no model needs
_STORED_ONCE = (r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$")


def check_complete(architecture: Architecture, layout: Layout, checkpoint: Checkpoint) -> None:
    """Raises `CheckpointError` if the dense part lacks a weight, or one of its modules has no place for a tensor.

    Tensors of modules that the model does not have are logged, unless its class is known to leave them out.
    """
    missing = sorted(_missing(architecture, layout))
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {len(missing)} tensors of the dense part, the first is {missing[0]}"
        )
    unused = {name: target for name, target in layout.unused.items() if not _left_out(architecture, name, target)}
    model = architecture.meta_model
    owners = {name for name, _ in model.named_modules() if name} | set(model.state_dict())
    experts = tuple(f"{module.name}." for module in architecture.experts)
    for name, target in unused.items():
        if target.rpartition(".")[0] in owners or target.startswith(experts):
            raise _misplaced(architecture, checkpoint, name)
    if unused:
        log.warning("%s: %d tensors belong to no part of %s and are not used, the first is %s",
                    checkpoint.folder, len(unused), architecture.name, min(unused))  # fmt: skip


def _missing(architecture: Architecture, layout: Layout) -> set[str]:
    """Parameters and buffers that a checkpoint has to hold and this one does not."""
    model = architecture.meta_model
    elsewhere = {
        f"{module.name}.{parameter}" for module in architecture.experts for parameter in module.parameters
    }
    missing = set(model.state_dict()) - layout.covered - elsewhere
    for tied, source in model.all_tied_weights_keys.items():  # either has the values of both
        if {tied, source} & layout.covered:
            missing -= {tied, source}
    return {name for name in missing if not _matches(optional_weights(model), name)}


def _left_out(architecture: Architecture, name: str, target: str) -> bool:
    """Whether a tensor is one that the model's class leaves out, a buffer that it computes, or one of a tower."""
    model = architecture.meta_model
    patterns = (*ignored_tensors(model), *_STORED_ONCE)
    return (
        architecture.part.leaves_out(target)
        or _matches(patterns, name)
        or _matches(patterns, target)
        or target in dict(model.named_buffers())
    )


def _matches(patterns: Iterable[str], name: str) -> bool:
    return any(re.search(pattern, name) for pattern in patterns)


def _misplaced(architecture: Architecture, checkpoint: Checkpoint, name: str) -> CheckpointError:
    file = checkpoint.location(name).parts[0].file
    if any(fnmatch(name, pattern) for pattern in _QUANTIZED):
        return CheckpointError(
            f"{file}: tensor {name} belongs to quantized weights that no weight format reads: the config declares no "
            "quantization (quantization_config) of which it is a part, and other tensors of the weight may be missing"
        )
    return CheckpointError(
        f"{file}: tensor {name} has no place in {architecture.name} with this config, so the config "
        "is that of another model"
    )
