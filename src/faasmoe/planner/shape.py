"""The sizes of a model that planning needs: its experts, its dense part, and the state of a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from faasmoe.errors import OptionError
from faasmoe.model.architecture import Architecture, inspect_architecture, read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.model.synthesis.geometries import facts_of, is_geometry
from faasmoe.model.synthesis.synthesis import published_config

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
    """Sizes in bytes are those in memory, in the dtype in which the model computes."""

    name: str
    layers: tuple[ExpertLayer, ...]  # those that have experts
    dense_bytes: int
    state: StateSpec  # of a sequence
    bytes_per_weight: int
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
    model: str | None, dtype: str = "auto", layers: int | None = None, vocab: int | None = None
) -> ModelShape:
    """The shape of a published geometry, of which `layers` are taken, of a folder or of a hub id. Loads no weights.

    `layers` and `vocab` are for geometries only, as in `faasmoe models make`.

    Raises `OptionError`, `CheckpointError` or `UnsupportedModel`.
    """
    facts_of(model, layers)  # refuses what can be refused
    if model is not None and is_geometry(model):
        return _shape(model, inspect_architecture(published_config(model, layers, vocab)), dtype)
    source = resolve(model, config_only=True)
    return _shape(source.name, inspect_architecture(read_config(source.folder)), dtype)


def _shape(name: str, architecture: Architecture, dtype: str) -> ModelShape:
    config = architecture.text_config
    named = str(getattr(config, "dtype", None)) if dtype == "auto" else dtype
    computed = torch.bfloat16 if "bfloat16" in named else torch.float32
    size = computed.itemsize
    top_k = next((int(value) for key in _TOP_K if (value := getattr(config, key, None))), 0)
    if not top_k:
        raise OptionError(f"{name}: its config does not say how many experts a token gets ({', '.join(_TOP_K)})")
    experts = [
        (module.num_experts, sum(map(math.prod, module.parameters.values()))) for module in architecture.experts
    ]
    layers = tuple(ExpertLayer(count, min(top_k, count), size * weights // count) for count, weights in experts)
    weights = sum(parameter.numel() for parameter in architecture.meta_model.parameters())
    dense = size * (weights - sum(count for _, count in experts))
    table = size * _table(architecture.meta_model)
    width = architecture.experts[0].hidden_size
    return ModelShape(
        name=name,
        layers=layers,
        dense_bytes=dense,
        state=_state(config, computed),
        bytes_per_weight=size,
        width=width,
        table_bytes=table,
    )


def _table(model: Any) -> int:
    """Weights of the embedding table that only look-ups of tokens read; 0 if the output head shares them."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    return 0 if head is None or head.weight is table.weight else int(table.weight.numel())


def _state(config: Any, dtype: torch.dtype) -> StateSpec:
    """The KV caches of all layers, as attention keeps them (`model.dense.attention`)."""
    heads = int(config.num_attention_heads)
    if getattr(config, "kv_lora_rank", None):  # kept expanded
        keys, values = int(config.qk_nope_head_dim + config.qk_rope_head_dim), int(config.v_head_dim)
    else:
        keys = values = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
        heads = int(getattr(config, "num_key_value_heads", None) or heads)
    cache = KVCacheSpec(heads, keys, values, dtype, dtype)
    return StateSpec(dict.fromkeys(range(int(config.num_hidden_layers)), cache))
