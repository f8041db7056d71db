"""The tensors of GGUF files as the weights of a model of transformers.

`gguf`'s own table says how tensors are named. Experts lie stacked, `[experts, out, in]`, gate and up each for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.formats.base import Matrix, MatrixLocation
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.architecture import Architecture, ExpertsModule
from faasmoe.model.checkpoint.gguf.architectures import GgufArchitecture, architecture_for
from faasmoe.model.checkpoint.gguf.header import read_gguf_header
from faasmoe.model.checkpoint.gguf.types import FORMATS, PLAIN, WidenedLocation, locations
from faasmoe.model.checkpoint.index import Checkpoint, Place

_BLOCK = re.compile(r"blk\.(\d+)\.")
_CORRECTION = "e_score_correction_bias"  # of routers, a vector that `gguf`'s table has without this ending


@dataclass(frozen=True, slots=True)
class ReorderedLocation:
    """A weight `[out, in]` whose rows are put in another order when it is mapped, in memory of its own."""

    location: MatrixLocation
    heads: int  # whose rows are pairs in the order of Meta's rotary embeddings

    @property
    def format(self) -> str:
        """See `MatrixLocation`."""
        return self.location.format

    @property
    def shape(self) -> tuple[int, ...]:
        """See `MatrixLocation`."""
        return self.location.shape

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return self.location.parts

    @property
    def nbytes(self) -> int:
        """See `MatrixLocation`."""
        return self.location.nbytes

    def memory(self, width: int) -> int:
        """See `MatrixLocation`."""
        return self.location.memory(width)

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> Matrix:
        """See `MatrixLocation`: row 2j + i of a head becomes row j + i * (rows of the head / 2)."""
        rows = torch.arange(self.shape[0]).reshape(self.heads, -1, 2).transpose(1, 2).flatten().numpy()
        matrix: Matrix = self.location.map(dtype, read_ahead)[rows]
        return matrix


def open_gguf(files: Sequence[Path]) -> Checkpoint:
    """The tensors of GGUF files, by the names that they have there.

    Raises `CheckpointError` for a damaged file, `UnsupportedModel` for a type of tensors that is not read.
    """
    found: dict[str, MatrixLocation] = {}
    for file in files:
        for name, location in locations(read_gguf_header(file)).items():
            if name in found:
                raise CheckpointError(f"tensor {name} is in two files of {files[0]}")
            found[name] = location
    return Checkpoint(files[0], {}, found)


def named(checkpoint: Checkpoint, architecture: Architecture) -> tuple[Checkpoint, Architecture]:
    """The tensors of `open_gguf` by the model's names, and the architecture with experts as GGUF files have them.

    Raises `UnsupportedModel` for a tensor that has no place in the model.
    """
    model = replace(architecture, experts=tuple(map(_as_stored, architecture.experts)))
    name_of_it, kind = architecture_for(model.name)
    table = dict(_names(name_of_it, model))
    tensors: dict[str, MatrixLocation] = {}
    places: dict[str, Place] = {}
    for name in checkpoint:
        location = checkpoint.location(name)
        if (place := table.get(name)) is None:
            _check_needless(location.parts[0].file, name, model)
            continue
        if isinstance(location, WidenedLocation) and name.endswith("_exps.weight"):
            raise UnsupportedModel(
                f"{location.blocks.file}: tensor {name} is in {location.layout.format}, which is not served for "
                f"experts; {', '.join([*PLAIN.values(), *FORMATS.values()])} are"
            )
        key = place.parameter if place.piece is None else name
        tensors[key] = _fitted(location, place.parameter, model, kind)
        places[key] = place
    return Checkpoint(checkpoint.folder, {}, tensors, places), model


def _as_stored(module: ExpertsModule) -> ExpertsModule:
    """Experts whose matrices are `[out, in]`, with gate and up each for itself."""
    turn = module.form.transposed
    parameters = {
        name: (*shape[:1], *reversed(shape[1:])) if turn and len(shape) > 2 else shape
        for name, shape in module.parameters.items()
    }
    return replace(module, form=replace(module.form, transposed=False, interleaved=False), parameters=parameters)


def _names(architecture: str, model: Architecture) -> Iterator[tuple[str, Place]]:
    """Tensors of GGUF files to their places in the model."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map  # noqa: PLC0415 - takes a third of a second

    (number,) = [number for number, name in MODEL_ARCH_NAMES.items() if name == architecture]
    layers = int(model.text_config.num_hidden_layers)
    table: Any = get_tensor_name_map(number, layers)
    routed = tuple(f"{module.name}." for module in model.experts)
    for parameter in model.meta_model.state_dict():
        base, _, ending = parameter.rpartition(".")
        if ending == _CORRECTION:
            base, ending = parameter.removesuffix("_bias"), "bias"
        elif ending not in ("weight", "bias"):
            base, ending = parameter, "weight"
        if not parameter.startswith(routed) and (name := table.get_name(base)):
            yield f"{name}.{ending}", Place(parameter)
    for module in model.experts:
        yield from _experts(module)


def _experts(module: ExpertsModule) -> Iterator[tuple[str, Place]]:
    first = f"blk.{module.layer}.ffn_"
    for parameter in module.parameters:
        full = f"{module.name}.{parameter}"
        ending = "bias" if parameter.endswith("_bias") else "weight"
        which = parameter.removesuffix("_bias").removesuffix("_proj")  # gate_up, up or down
        yield f"{first}{which}_exps.{ending}", Place(full)
        if which == "gate_up":
            for piece in ("gate", "up"):
                yield f"{first}{piece}_exps.{ending}", Place(full, piece)


def _check_needless(file: Path, name: str, model: Architecture) -> None:
    """Raises `UnsupportedModel` unless a tensor belongs to a layer that predicts further tokens, beyond the model's."""
    block = _BLOCK.match(name)
    if block is None or int(block[1]) < int(model.text_config.num_hidden_layers):
        raise UnsupportedModel(f"{file}: tensor {name} has no place in {model.name} as transformers has it")


def _fitted(
    location: MatrixLocation, parameter: str, model: Architecture, kind: GgufArchitecture
) -> MatrixLocation:
    """The location of a tensor that becomes `parameter`, with its rows in the order of the model's."""
    config = model.text_config
    if kind.permuted and parameter.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight")):
        query = parameter.endswith("q_proj.weight")
        return ReorderedLocation(
            location, int(config.num_attention_heads if query else config.num_key_value_heads)
        )
    wanted: Mapping[str, Tensor] = model.meta_model.state_dict()
    shape = tuple(wanted[parameter].shape)
    if isinstance(location, TensorLocation) and [n for n in shape if n > 1] == [
        n for n in location.shape if n > 1
    ]:
        return replace(location, shape=shape)  # ggml keeps no dimension of one
    return location
