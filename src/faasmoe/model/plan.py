"""The plan of serving a checkpoint, with nothing started: architecture, blocks, and the memory that it will take."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from transformers import PretrainedConfig

from faasmoe.errors import CheckpointError, OptionError
from faasmoe.experts.formats import registry
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.model.architecture import Architecture, inspect_architecture, layers_of, read_config
from faasmoe.model.checkpoint.files import CheckpointFiles
from faasmoe.model.checkpoint.folder import check_folder
from faasmoe.model.checkpoint.gguf_link import linked_files
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.checkpoint.source import ModelSource
from faasmoe.model.config.facts import check_context, check_types
from faasmoe.model.config.rope import RopeScaling
from faasmoe.model.tensors import NAME_OF
from faasmoe.model.text.tokenizer import Tokenizer
from faasmoe.model.weights.blocks import Block, check_block_size, cut
from faasmoe.model.weights.completeness import check_complete
from faasmoe.model.weights.copy_plan import plan_copy, plan_packed_copy
from faasmoe.model.weights.gguf_tensors import named, open_gguf
from faasmoe.model.weights.layout import Layout, dense_tensors, read_layout
from faasmoe.model.weights.orientation import as_stored
from faasmoe.model.weights.quantised import QuantisedCopy


@dataclass(frozen=True, kw_only=True)
class ModelPlan:
    """A model before it is loaded."""

    source: ModelSource
    architecture: Architecture
    tokenizer: Tokenizer
    checkpoint: Checkpoint
    layout: Layout
    block_size: int
    dtype: torch.dtype  # in which it computes
    blocks: tuple[Block, ...]
    quantised: QuantisedCopy | None = None  # what it uses instead of the checkpoint's matrices; to be made first

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense part's weights as they will lie in memory."""
        plain = [self.checkpoint.location(name).shape for name in dense_tensors(self.layout, self.linears)]
        width = self.dtype.itemsize
        quantised = sum(location.memory(width) for location in self.linears.values())
        return sum(prod(shape) * width for shape in plain) + quantised

    @property
    def linears(self) -> dict[str, MatrixLocation]:
        """The dense part's linear layers whose weights are quantised, by name."""
        return self.quantised.linears if self.quantised else self.layout.linears

    def files(self) -> CheckpointFiles:
        """The files that weights are mapped from. A quantised copy must have been made."""
        made = self.quantised.states() if self.quantised else {}
        return CheckpointFiles(self.checkpoint.files | made)

    @property
    def function_bytes(self) -> int:
        """Bytes of the weights of the largest function."""
        return max(block.artifact.memory for block in self.blocks)

    @property
    def mapped(self) -> bool:
        """Whether experts' weights are used as they lie in the files, without a copy."""
        return all(block.artifact.memory == block.artifact.nbytes for block in self.blocks)


def make_plan(
    source: ModelSource,
    block_size: int | None = None,
    dtype: str = "auto",
    quantize: str | None = None,
    rope_scaling: str | None = None,
) -> ModelPlan:
    """Check the model and cut it into blocks.

    With `quantize` its large matrices are converted to that format, and all other weights are in bfloat16.
    `rope_scaling` is the content of `--rope-scaling`. Raises
    `UserError` if its files are damaged, it cannot be served, or an option is out of range. No weight is read here:
    `DenseModel.load` checks that they are finite and that a token can be run with them.
    """
    check_types(dtype, quantize)
    check_folder(source.folder)
    CheckpointFiles.of(source.folder)  # from here on transformers may open them
    config = read_config(source.folder, None if rope_scaling is None else RopeScaling.parse(rope_scaling))
    architecture, tokenizer, checkpoint = _opened(source.folder, config)
    size = check_block_size(block_size, architecture)
    layout = read_layout(architecture, checkpoint)
    architecture = as_stored(architecture, layout, checkpoint)
    check_complete(architecture, layout, checkpoint)
    chosen = torch.bfloat16 if quantize else _choose_dtype(dtype, checkpoint, layout)
    quantised = _copy(source, quantize, architecture, layout, checkpoint)
    return ModelPlan(
        source=source,
        architecture=architecture,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        layout=layout,
        block_size=size,
        dtype=chosen,
        blocks=tuple(cut(architecture, layout, checkpoint, size, NAME_OF[chosen], quantised)),
        quantised=quantised,
    )


def _opened(folder: Path, config: PretrainedConfig) -> tuple[Architecture, Tokenizer, Checkpoint]:
    """Architecture, tokenizer and tensors by names that the layout knows."""
    files = linked_files(folder)
    checkpoint = (
        open_gguf(files) if files else Checkpoint.open(folder, getattr(config, "transformers_weights", None))
    )
    if layers_of(config) > len(checkpoint):  # building them could take minutes
        raise CheckpointError(
            f"{folder}: its config announces {layers_of(config)} layers, its files hold {len(checkpoint)} tensors"
        )
    architecture, tokenizer = _described(folder, config)
    if files:
        checkpoint, architecture = named(checkpoint, architecture)
    else:
        checkpoint = checkpoint.recognised(architecture.quantization)
    return architecture, tokenizer, checkpoint


def _copy(
    source: ModelSource, quantize: str | None, architecture: Architecture, layout: Layout, checkpoint: Checkpoint
) -> QuantisedCopy | None:
    if quantize is not None and checkpoint.places:
        raise OptionError(
            f"--quantize {quantize}: {checkpoint.folder} is a GGUF file, which is served in the types that it has; "
            "leave out the option"
        )
    if quantize is None:
        return plan_packed_copy(source.name, architecture, layout, checkpoint)
    return plan_copy(source.name, registry.by_name(quantize), architecture, layout, checkpoint)


def describe(folder: Path) -> tuple[Architecture, Tokenizer]:
    """Architecture and tokenizer, which need no weights. Raises `UserError` if the model cannot be served."""
    CheckpointFiles.of(folder)
    return _described(folder, read_config(folder))


def context_length(plan: ModelPlan, asked: int | None) -> int:
    """The longest sequence to serve. Raises `OptionError` if `asked` is more than the model was made for."""
    most = plan.architecture.context_length
    if asked is None:
        return most
    check_context(asked, most)
    return asked


def _described(folder: Path, config: PretrainedConfig) -> tuple[Architecture, Tokenizer]:
    return inspect_architecture(config), Tokenizer.load(folder, config)


def _choose_dtype(dtype: str, checkpoint: Checkpoint, layout: Layout) -> torch.dtype:
    """`auto` is bfloat16 for weights in bfloat16 and quantised ones, else float32, which loses nothing."""
    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    first = next(iter(next(iter(layout.experts.values())).values()))
    name = next(iter(first.tensors.values()))[0]
    location = checkpoint.location(name)
    plain = registry.format_of(location) is registry.DENSE
    return torch.float32 if plain and location.parts[0].dtype != "BF16" else torch.bfloat16
