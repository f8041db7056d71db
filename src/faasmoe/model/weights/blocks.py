"""Cut a model's routed experts into blocks: consecutive experts of one layer that live in one function."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.experts.artifact import Artifact
from faasmoe.model.architecture import Architecture
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.config import facts
from faasmoe.model.weights.layout import Layout, locate_experts, stored_form
from faasmoe.model.weights.quantised import QuantisedCopy

DEFAULT_BLOCK_SIZE = 10


@dataclass(frozen=True)
class Block:
    """A function before it is deployed: its name and its artifact."""

    name: str  # e.g. layer-03-block-05
    artifact: Artifact


def check_block_size(block_size: int | None, architecture: Architecture) -> int:
    """The block size to use. Raises `OptionError` if `block_size` is not 1 to E."""
    most = max(experts.num_experts for experts in architecture.experts)
    if block_size is None:
        return min(DEFAULT_BLOCK_SIZE, most)
    facts.check_block_size(block_size, most)
    return block_size


def cut(
    architecture: Architecture,
    layout: Layout,
    checkpoint: Checkpoint,
    block_size: int,
    dtype: str,
    quantised: QuantisedCopy | None = None,
) -> list[Block]:
    """All blocks of the model, computing in `dtype` ("F32", "BF16"). The last of a layer may be smaller.

    Raises `CheckpointError` if an expert's weights are incomplete.
    """
    blocks = []
    for module in architecture.experts:
        if quantised:
            locations = quantised.experts[module.name]
        else:
            locations = locate_experts(module, layout.experts[module.name], checkpoint)
        form = stored_form(module, locations)
        for number, start in enumerate(range(0, module.num_experts, block_size)):
            experts = tuple(range(start, min(start + block_size, module.num_experts)))
            weights = tuple(locations[e] for e in experts)
            artifact = Artifact(module.layer, experts, dtype, form, weights)
            blocks.append(Block(f"layer-{module.layer:02}-block-{number:02}", artifact))
    return blocks
