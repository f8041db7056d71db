"""A checkpoint made ready to serve, with nothing started: what it is, its blocks, and what memory to expect."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from faasmoe.errors import OptionError
from faasmoe.experts.dtypes import BY_NAME, NAME_OF
from faasmoe.model.architecture import Architecture, inspect_architecture, read_config
from faasmoe.model.blocks import Block, check_block_size, cut
from faasmoe.model.checkpoint import Checkpoint
from faasmoe.model.layout import Layout, read_layout
from faasmoe.model.source import ModelSource

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class ModelPlan:
    """Everything that is known about a model before it is loaded."""

    source: ModelSource
    architecture: Architecture
    checkpoint: Checkpoint
    layout: Layout
    block_size: int
    dtype: torch.dtype  # in which it computes
    blocks: tuple[Block, ...]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense part's weights as they will lie in memory."""
        locations = [self.checkpoint.location(name) for name in self.layout.dense]
        return sum(_bytes_in(location.shape, self.dtype) for location in locations)

    @property
    def function_bytes(self) -> int:
        """Bytes of the weights of the largest function."""
        return max(
            sum(_bytes_in(location.shape, self.dtype) for expert in b.artifact.weights for location in expert)
            for b in self.blocks
        )

    @property
    def mapped(self) -> bool:
        """Whether weights are used as they lie in the files, without a copy."""
        return all(
            BY_NAME[location.dtype] == self.dtype
            for block in self.blocks
            for expert in block.artifact.weights
            for location in expert
        )


def make_plan(source: ModelSource, block_size: int | None = None, dtype: str = "auto") -> ModelPlan:
    """Check the model and cut it into blocks.

    Raises `UserError` if its files are damaged, it cannot be served, or an option is out of range.
    """
    if dtype not in DTYPES:
        raise OptionError(f"--dtype {dtype}: must be {', '.join(DTYPES)}")
    architecture = inspect_architecture(read_config(source.folder))
    size = check_block_size(block_size, architecture)
    checkpoint = Checkpoint.open(source.folder)
    layout = read_layout(architecture, checkpoint)
    chosen = _choose_dtype(dtype, checkpoint, layout)
    blocks = cut(architecture, layout, checkpoint, size, NAME_OF[chosen])
    return ModelPlan(source, architecture, checkpoint, layout, size, chosen, tuple(blocks))


def context_length(plan: ModelPlan, asked: int | None) -> int:
    """The longest sequence to serve. Raises `OptionError` if `asked` is more than the model was made for."""
    most = plan.architecture.context_length
    if asked is None:
        return most
    if not 2 <= asked <= most:
        raise OptionError(f"--max-model-len {asked}: must be 2 to {most}, the model's context")
    return asked


def _choose_dtype(dtype: str, checkpoint: Checkpoint, layout: Layout) -> torch.dtype:
    """`auto` keeps bfloat16 and makes float32 of everything else, which loses nothing."""
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    first = next(iter(next(iter(layout.experts.values())).values()))
    name = next(iter(first.tensors.values()))[0]
    return torch.bfloat16 if checkpoint.location(name).dtype == "BF16" else torch.float32


def _bytes_in(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    count = 1
    for size in shape:
        count *= size
    return count * dtype.itemsize
