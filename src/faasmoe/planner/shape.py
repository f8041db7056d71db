"""The sizes of a model that planning needs: its experts, its dense part, and the state of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from faasmoe.errors import OptionError
from faasmoe.experts import dtypes
from faasmoe.experts.formats.base import WeightFormat
from faasmoe.experts.formats.registry import by_name
from faasmoe.model.architecture import Architecture, ExpertsModule, inspect_architecture, read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.config.facts import check_types
from faasmoe.model.dense.rehearsal import rehearse
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.model.synthesis.geometries import facts_of, is_geometry
from faasmoe.model.synthesis.synthesis import published_config
from faasmoe.model.weights.copy_plan import convertible

# How configs of transformers name K.
_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k", "moe_k")


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """The routed experts of one layer."""

    experts: int  # E
    top_k: int  # K
    expert_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes in bytes are those in memory, in the dtype in which the model computes or the format of its weights."""

    name: str
    layers: tuple[ExpertLayer, ...]  # those that have experts
    dense_bytes: int
    state: StateSpec  # of a sequence
    bytes_per_weight: float  # on average, of those that a token is multiplied by
    width: int  # H
    table_bytes: int = 0  # of the dense ones: an embedding table that is no head as well; few of its rows are read

    @property
    def expert_bytes(self) -> int:
        """All routed experts."""
        return sum(layer.experts * layer.expert_bytes for layer in self.layers)

    def block_sizes(self, layer: ExpertLayer, block_size: int) -> list[int]:
        """Experts of each block of a layer; the last may have fewer."""
        return [min(block_size, layer.experts - start) for start in range(0, layer.experts, block_size)]


def shape_of(
    model: str | None,
    dtype: str = "auto",
    layers: int | None = None,
    vocab: int | None = None,
    quantize: str | None = None,
) -> ModelShape:
    """The shape of a published geometry, of which `layers` are taken, of a folder or of a hub id. Loads no weights.

    `layers` and `vocab` are for geometries only, as in `faasmoe models make`. With `quantize` the large matrices are in
    that format, as `faasmoe serve --quantize` has them.

    Raises `OptionError`, `CheckpointError` or `UnsupportedModel`.
    """
    facts_of(model, layers)  # refuses what can be refused
    check_types(dtype, quantize)
    if model is not None and is_geometry(model):
        return _shape(model, inspect_architecture(published_config(model, layers, vocab)), dtype, quantize)
    source = resolve(model, config_only=True)
    return _shape(source.name, inspect_architecture(read_config(source.folder)), dtype, quantize)


def _shape(name: str, architecture: Architecture, dtype: str, quantize: str | None) -> ModelShape:
    config = architecture.text_config
    named = str(getattr(config, "dtype", None)) if dtype == "auto" else dtype
    computed = torch.bfloat16 if quantize or "bfloat16" in named else torch.float32
    size = computed.itemsize
    format = by_name(quantize) if quantize else None
    top_k = next((int(value) for key in _TOP_K if (value := getattr(config, key, None))), 0)
    if not top_k:
        raise OptionError(f"{name}: its config does not say how many experts a token gets ({', '.join(_TOP_K)})")
    layers = tuple(
        ExpertLayer(module.num_experts, min(top_k, module.num_experts), _expert_bytes(module, size, format))
        for module in architecture.experts
    )
    weights = sum(parameter.numel() for parameter in architecture.meta_model.parameters())
    experts = {module.name: sum(map(math.prod, module.parameters.values())) for module in architecture.experts}
    dense_weights = weights - sum(experts.values())
    dense = size * dense_weights - (_saved(architecture, size, format) if format else 0)
    table, shared = _table(architecture.meta_model)
    table_bytes = 0 if shared and format is None else size * table  # a converted head is no table any more
    read = dense - table_bytes + sum(layer.top_k * layer.expert_bytes for layer in layers)
    multiplied = (dense_weights if shared else dense_weights - table) + sum(
        layer.top_k * count // layer.experts for layer, count in zip(layers, experts.values(), strict=True)
    )
    return ModelShape(
        name=name,
        layers=layers,
        dense_bytes=dense,
        state=rehearse(architecture, computed),
        bytes_per_weight=read / multiplied,
        width=architecture.experts[0].hidden_size,
        table_bytes=table_bytes,
    )


def _expert_bytes(module: ExpertsModule, size: int, format: WeightFormat | None) -> int:
    """One expert's, in weights of `size` bytes; its matrices in `format`, if there is one."""
    found = 0
    for _, *shape in module.parameters.values():
        if format is None or len(shape) == 1:
            found += size * math.prod(shape)
        else:
            outs, ins = reversed(shape) if module.form.transposed else shape
            found += _converted_bytes(format, outs, ins)
    return found


def _saved(architecture: Architecture, size: int, format: WeightFormat) -> int:
    """Bytes by which the dense part is smaller with its linear layers in `format`; a tied table stays as well."""
    model = architecture.meta_model
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    saved = 0
    for layer in convertible(architecture).values():
        its = by_name(format.head) if format.head and layer is head else format
        if layer.in_features % its.multiple == 0:
            plain = 0 if layer.weight is table else size * layer.weight.numel()
            saved += plain - _converted_bytes(its, layer.out_features, layer.in_features)
    return saved


def _converted_bytes(format: WeightFormat, outs: int, ins: int) -> int:
    arrays = format.converted("", (outs, ins)).values()
    return sum(dtypes.BY_NAME[dtype].itemsize * math.prod(shape) for dtype, shape in arrays)


def _table(model: Any) -> tuple[int, bool]:
    """Weights of the embedding table, and whether the output head shares them."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    return int(table.weight.numel()), head is None or head.weight is table.weight
