"""Attention over a flat row of tokens from several sequences, each with its own KV cache.

Registered with transformers under `NAME`, so that any model whose attention goes through its registry can run
a step that holds decodes and prefills of many sequences at once. No padding, no mask over the row.

Which positions a layer may see is asked once, when the model is loaded, under the name `PROBE` (`windows.py`). Under
`NAME`, in steps, models make no masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.adapter.registries import register_attention
from faasmoe.model.dense import decode_kernel, heads
from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.heads import Heads, PlainHeads
from faasmoe.model.dense.latent.expansions import expansion_of
from faasmoe.model.dense.latent.latent_heads import LatentHeads
from faasmoe.model.dense.replay.operation import PreparedStep, StateBoundary, visible
from faasmoe.model.dense.windows import NO_WINDOW, window_mask
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec, Place
from faasmoe.model.state.sequence_state import LayerSpec, SequenceState, StateKey

NAME, PROBE = "faasmoe_flat", "faasmoe_probe"
HARMLESS = frozenset({
    "dropout", "logits_to_keep", "output_attentions", "output_hidden_states", "output_router_logits", "position_ids",
    "use_cache",
})  # fmt: skip
"""Keywords that change nothing here: dropout is 0 in a model that serves, and the others say what a model returns, or
what queries and keys have in them already."""


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of one sequence in the flat row."""

    state: SequenceState
    count: int
    apart: bool = False  # each token attends as one in a step of its own does, which gives it the same bits


@dataclass
class FlatRow:
    """The sequences in the row of the current step. One object per model, which every module can reach."""

    spans: list[Span] = field(default_factory=list)
    windows: dict[int, int] = field(default_factory=dict)  # layer to its sliding window, 0 for none
    chunks: dict[int, int] = field(
        default_factory=dict
    )  # layer to the chunk of positions that it sees, if it has one
    kinds: dict[StateKey, LayerSpec] = field(default_factory=dict)  # the kinds of state that are kept
    probing: bool = False  # one token runs, to learn of each layer what it sees and keeps

    def note_window(self, layer: int, width: int) -> None:
        """`width` is what `window_mask` gives. Raises `UnsupportedModel` if it is `NO_WINDOW`."""
        if width == NO_WINDOW:
            raise UnsupportedModel(f"layer {layer} attends to something else than a sliding window of the past")
        if width < 0:
            self.chunks[layer] = -width
        self.windows[layer] = max(width, 0)

    def note_state(self, key: StateKey, kind: LayerSpec) -> None:
        """Let a layer keep a state of this kind for every sequence. For the probe, whose sequence gets it now."""
        self.kinds[key] = kind
        for span in self.spans:
            state = span.state.layers[key] = kind.allocate()
            state.reserve(span.count)

    def attach(self, model: nn.Module) -> None:
        """Let every module of `model` find this object."""
        for module in model.modules():
            module.__dict__["flat_row"] = self


def flat_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    indices: Tensor | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """`query`, `key`, `value` `[1, heads, T, dim]` to `[1, T, heads, dim]`, as transformers wants it.

    `indices` `[1, T, topk]` int32 are the positions that each token attends to, or -1 for all before it. Raises
    `UnsupportedModel` for keywords that are not known to change nothing.
    """
    owner: Any = module
    layer: int = owner.layer_idx
    if is_causal is False or others.keys() - HARMLESS:
        _check_keywords(layer, {**others, "is_causal": is_causal})
    row: FlatRow = owner.flat_row
    if row.probing:
        _probe(row, module, attention_mask, key[0], value[0], indices)
    rule = Rule(
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        row.windows.get(layer) or sliding_window or 0,
        softcap or 0.0,
        s_aux,
    )
    tensors = (query, key, value) if indices is None else (query, key, value, indices)
    expansion = expansion_of(module)
    its = PlainHeads(rule) if expansion is None else LatentHeads(rule, expansion)
    if query.is_meta:  # a rehearsal
        return its.empty(query, value), None
    return visible(LayerAttention(row, layer, its, probed=row.probing), *tensors), None


@dataclass(frozen=True, slots=True)
class LayerAttention(StateBoundary):
    """The attention of a layer to the states of the row's sequences, as `replay.operation.Boundary`."""

    row: FlatRow
    layer: int
    heads: Heads
    probed: bool

    def __call__(self, *tensors: Tensor) -> Tensor:
        """`query`, `key`, `value` and, if the layer has them, `indices`: see `flat_attention`."""
        query, key, value, *indices = tensors
        compiled = not self.probed and self.heads.supports(query, key, value)
        sparse = _sparse(indices[0]) if indices else set()
        decodes: dict[int, Place] = {}
        start, whole = 0, {}
        for span in self.row.spans:
            cache = span.state.layers[self.layer]
            if compiled and (span.count == 1 or span.apart) and start not in sparse:
                decodes.update(enumerate(_places(cache, span), start))
            else:
                here = slice(start, start + span.count)
                keys, values = cache.append(key[0, :, here], value[0, :, here])
                selected = indices[0][0, here] if start in sparse else None
                attend = partial(heads.attend_apart, self.heads) if span.apart else self.heads.attend
                whole[start] = attend(query[0, :, here], keys, values, selected).transpose(0, 1)
            start += span.count
        if not whole:
            return heads.decode(list(decodes.values()), self.heads, query, key, value)
        out = self.heads.empty(query, value)
        for first, answers in whole.items():
            out[0, first : first + len(answers)] = answers
        if decodes:
            rows = torch.tensor(list(decodes))
            q, k, v = (tensor[:, :, rows] for tensor in (query, key, value))
            out[:, rows] = heads.decode(list(decodes.values()), self.heads, q, k, v)
        return out

    def step(self, tensors: Sequence[Tensor], result: Tensor) -> PreparedStep | None:
        """See `Boundary`. For rows of which each attends as one in a step of its own does (`attends_by_token`)."""
        query, key, value, *indices = tensors
        if indices:  # which say only in the step itself what is read
            return None
        if not self.heads.supports(query, key, value) or not decode_kernel.in_place(query, key, value):
            return None
        count = query.shape[2]
        decode = self.heads.decode(query, key, value, result)

        def place() -> None:
            spans, layer = self.row.spans, self.layer
            if len(spans) == count:  # a token of each
                decode.place([span.state.layers[layer].place() for span in spans])
            else:
                decode.place([place for span in spans for place in _places(span.state.layers[layer], span)])

        return PreparedStep(decode.row, place)


def attends_by_token(spans: Sequence[Span]) -> bool:
    """Whether each token of a row attends as one in a step of its own does."""
    return all(span.count == 1 or span.apart for span in spans)


def _places(cache: KVCache, span: Span) -> list[Place]:
    """Where the keys and values of a span are to be written, whose tokens attend one by one."""
    if span.apart:
        cache.make_room(span.count)
    return [cache.place() for _ in range(span.count)]


def _sparse(indices: Tensor) -> set[int]:
    """The tokens of the row that attend to selected positions alone."""
    return set(torch.nonzero(indices[0, :, 0] >= 0)[:, 0].tolist())


def _probe(
    row: FlatRow, module: nn.Module, mask: Tensor | None, key: Tensor, value: Tensor, indices: Tensor | None
) -> None:
    """Note what a layer sees and keeps. `key` and `value` are `[heads, T, dim]`.

    Raises `UnsupportedModel` if the layer does not say what it sees, or has an indexer that it does not heed.
    """
    owner: Any = module
    layer: int = owner.layer_idx
    if mask is None:
        raise UnsupportedModel(f"layer {layer} attends without a mask, so which positions it sees is not known")
    if getattr(module, "indexer", None) is not None and indices is None:
        raise UnsupportedModel(f"layer {layer} has an indexer and does not pass its choice to its attention")
    row.note_window(layer, int(mask))
    row.note_state(layer, KVCacheSpec.like(key, value))


def _check_keywords(layer: int, named: dict[str, Any]) -> None:
    """Raises `UnsupportedModel` for keywords that may change what attention computes."""
    wrong = [name for name in named.keys() - HARMLESS if named[name] is not None]
    if named["is_causal"]:  # it always is
        wrong.remove("is_causal")
    if wrong:
        raise UnsupportedModel(
            f"layer {layer} passes {', '.join(sorted(wrong))} to its attention: what that changes is not served"
        )


register_attention(PROBE, flat_attention, window_mask)
register_attention(NAME, flat_attention)
