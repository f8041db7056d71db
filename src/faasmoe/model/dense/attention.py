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
from faasmoe.model.dense.replay.operation import PreparedStep, WholeBoundary, visible
from faasmoe.model.dense.windows import NO_WINDOW, window_mask
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec, Place
from faasmoe.model.state.sequence_state import LayerSpec, Owner, SequenceState

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
    )  # layer to the chunk of positions that it sees, if it has some
    kinds: dict[int, LayerSpec] = field(default_factory=dict)  # layer to the kind of state that it keeps

    def note_window(self, layer: int, width: int) -> None:
        """`width` is what `window_mask` gives. Raises `UnsupportedModel` if it is `_NO_WINDOW`."""
        if width == _NO_WINDOW:
            raise UnsupportedModel(f"layer {layer} attends to something else than a sliding window of the past")
        if width < 0:
            self.chunks[layer] = -width
        self.windows[layer] = max(width, 0)

    def note_state(self, owner: Owner, kind: LayerSpec) -> None:
        """Let `owner` keep a state of this kind for every sequence. For the probe, whose sequence gets it now."""
        self.kinds[owner] = kind
        for span in self.spans:
            state = span.state.layers[owner] = kind.allocate()
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
    return visible(LayerAttention(row, layer, its, probed=row.probing), *tensors), None


@dataclass(frozen=True, slots=True)
class LayerAttention(WholeBoundary):
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


def _attend(query: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    """`query` `[heads, n, dim]`, the last n positions of `keys`, `values` `[kv_heads, length, dim]`."""
    count, length, window = query.shape[1], keys.shape[1], rule.window
    if window and length >= count + window:  # nobody sees what lies before
        keys, values = keys[:, 1 - count - window :], values[:, 1 - count - window :]
        length = count + window - 1
    mask = None if count == 1 else _visible(count, length, window)
    if rule.softcap or rule.sinks is not None:
        return _attend_by_hand(query, keys, values, mask, rule)
    gqa = query.shape[0] != keys.shape[0]
    return F.scaled_dot_product_attention(
        query[None],
        keys[None],
        values[None],
        None if mask is None else mask[None, None],
        scale=rule.scale,
        enable_gqa=gqa,
    )[0]


def _attend_apart(query: Tensor, keys: Tensor, values: Tensor, rule: Rule) -> Tensor:
    """As `_attend`, one token after the other."""
    before = keys.shape[1] - query.shape[1]
    answers = [
        _attend(query[:, i : i + 1], keys[:, : before + i + 1], values[:, : before + i + 1], rule)
        for i in range(query.shape[1])
    ]
    return torch.cat(answers, 1)


def _visible(count: int, length: int, window: int | None) -> Tensor:
    """`[count, length]` bool: which positions each of the last `count` tokens may see."""
    q = torch.arange(length - count, length)[:, None]
    k = torch.arange(length)[None]
    return (k <= q) & (k > q - window) if window else k <= q


def _attend_by_hand(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    rule: Rule,
) -> Tensor:
    """Attention with what torch's own lacks: a cap on scores (Gemma 2) and sinks (gpt-oss)."""
    group = query.shape[0] // keys.shape[0]
    keys, values = keys.repeat_interleave(group, 0), values.repeat_interleave(group, 0)
    scores = (query @ keys.transpose(1, 2)).float() * rule.scale
    if rule.softcap:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if rule.sinks is not None:  # a score that takes weight and gives no value
        sink = rule.sinks.float().reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, sink], -1)
    weights = torch.softmax(scores, -1)[..., : keys.shape[1]]
    return weights.to(values.dtype) @ values


def window_mask(mask_function: Callable[..., Any], **_: Any) -> Tensor:
    """Stands in for a mask in the probe: the width of the window as `[]` int64.

    0 means all positions before a token, less than `_NO_WINDOW` those of a chunk of so many positions (in the first,
    all before a token), and `_NO_WINDOW` another mask (an error if a layer uses it).
    """
    return torch.tensor(_window_width(mask_function))


def _window_width(mask_function: Callable[..., Any]) -> int:
    far = 1 << 24  # a position beyond any context

    def sees(query: int, key: int) -> bool:
        zero = torch.tensor(0)
        return bool(mask_function(zero, zero, torch.tensor(query), torch.tensor(key)))

    if sees(far, far + 1) or not sees(far, far):
        return _NO_WINDOW
    if sees(far, 0):
        return 0
    if (chunk := _chunk(sees, far)) > 1:
        return -chunk
    seen, hidden = 0, far  # distances back
    while hidden - seen > 1:
        middle = (seen + hidden) // 2
        seen, hidden = (middle, hidden) if sees(far, far - middle) else (seen, middle)
    for query in (far + 1, far + hidden - 1, 2 * far - 1):  # chunks, unlike windows, do not move along
        if not sees(query, query - seen) or sees(query, query - hidden):
            return _NO_WINDOW
    return hidden


def _chunk(sees: Callable[[int, int], bool], far: int) -> int:
    """The size of chunks of positions of which each sees none before its own; 0 if there are none."""
    seen, hidden = 0, far  # positions that see the first one, and that do not
    while hidden - seen > 1:
        middle = (seen + hidden) // 2
        seen, hidden = (middle, hidden) if sees(middle, 0) else (seen, middle)
    for start in (hidden, 2 * hidden):
        last = start + hidden - 1
        if sees(start, start - 1) or not sees(last, start) or sees(last, last + 1):
            return 0
    return hidden


register_attention(PROBE, flat_attention, window_mask)
register_attention(NAME, flat_attention)
