"""Attention over a flat row of tokens from several sequences, each with its own KV cache.

Registered with transformers under `NAME`, so that any model whose attention goes through its registry can run
a step that holds decodes and prefills of many sequences at once. No padding, no mask over the row.

Models say with a mask which positions a layer may see. A mask over the flat row would be wrong, so the model is
asked once, when it is loaded: under the name `PROBE` it makes masks, by a function that answers with the width of the
window instead of a mask, and the attention notes it. Under `NAME`, in steps, it makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.adapter.registries import register_attention
from faasmoe.model.dense import decode_kernel
from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.replay.operation import PreparedStep, StateBoundary, visible
from faasmoe.model.state.kv_cache import KVCache, KVCacheSpec, Place
from faasmoe.model.state.sequence_state import LayerSpec, SequenceState, StateKey

NAME, PROBE = "faasmoe_flat", "faasmoe_probe"
_NO_WINDOW = -1


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
    kinds: dict[StateKey, LayerSpec] = field(default_factory=dict)  # the kinds of state that are kept

    def note_window(self, layer: int, width: int) -> None:
        """Raises `UnsupportedModel` if `width` is `_NO_WINDOW`."""
        if width == _NO_WINDOW:
            raise UnsupportedModel(f"layer {layer} attends to something else than a sliding window of the past")
        self.windows[layer] = width

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
    **_: Any,  # arguments of other attentions: dropout, cache positions, ...
) -> tuple[Tensor, None]:
    """`query`, `key`, `value` `[1, heads, T, dim]` to `[1, T, heads, dim]`, as transformers wants it."""
    owner: Any = module
    layer: int = owner.layer_idx
    row: FlatRow = owner.flat_row
    if attention_mask is not None:
        _probe(row, layer, int(attention_mask), key[0], value[0])
    if query.is_meta:  # a rehearsal
        return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3]), None
    rule = Rule(
        query.shape[-1] ** -0.5 if scaling is None else float(scaling),
        row.windows.get(layer) or sliding_window or 0,
        softcap or 0.0,
        s_aux,
    )
    return visible(LayerAttention(row, layer, rule, probed=attention_mask is not None), query, key, value), None


@dataclass(frozen=True, slots=True)
class LayerAttention(StateBoundary):
    """The attention of a layer to the states of the row's sequences, as `replay.operation.Boundary`."""

    row: FlatRow
    layer: int
    rule: Rule
    probed: bool

    def __call__(self, *tensors: Tensor) -> Tensor:
        """`query`, `key` and `value`: see `flat_attention`."""
        query, key, value = tensors
        compiled = not self.probed and decode_kernel.supports(query, key, value)
        decodes: dict[int, Place] = {}
        start, whole = 0, {}
        for span in self.row.spans:
            cache = span.state.layers[self.layer]
            if compiled and (span.count == 1 or span.apart):
                decodes.update(enumerate(_places(cache, span), start))
            else:
                here = slice(start, start + span.count)
                keys, values = cache.append(key[0, :, here], value[0, :, here])
                attend = _attend_apart if span.apart else _attend
                whole[start] = attend(query[0, :, here], keys, values, self.rule).transpose(0, 1)
            start += span.count
        if not whole:
            return decode_kernel.attend(list(decodes.values()), query, key, value, self.rule)
        out = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        for first, answers in whole.items():
            out[0, first : first + len(answers)] = answers
        if decodes:
            rows = torch.tensor(list(decodes))
            q, k, v = (tensor[:, :, rows] for tensor in (query, key, value))
            out[:, rows] = decode_kernel.attend(list(decodes.values()), q, k, v, self.rule)
        return out

    def step(self, tensors: Sequence[Tensor], result: Tensor) -> PreparedStep | None:
        """See `Boundary`. For rows of which each attends as one in a step of its own does (`attends_by_token`)."""
        query, key, value = tensors
        if not decode_kernel.supports(query, key, value) or not decode_kernel.in_place(query, key, value):
            return None
        count = query.shape[2]
        decode = decode_kernel.Decode(count, query, key, value, result, self.rule)

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


def _probe(row: FlatRow, layer: int, window: int, key: Tensor, value: Tensor) -> None:
    """Note what a layer sees and keeps. `key` and `value` are `[heads, T, dim]`."""
    row.note_window(layer, window)
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

    0 means all positions before a token, `_NO_WINDOW` a mask that is no causal window (an error if a layer uses it).
    """
    return torch.tensor(_window_width(mask_function), device="cpu")


def _window_width(mask_function: Callable[..., Any]) -> int:
    far = 1 << 24  # a position beyond any context

    def sees(query: int, key: int) -> bool:
        zero = torch.tensor(0, device="cpu")
        return bool(mask_function(zero, zero, torch.tensor(query, device="cpu"), torch.tensor(key, device="cpu")))

    if sees(far, far + 1) or not sees(far, far):
        return _NO_WINDOW
    if sees(far, 0):
        return 0
    seen, hidden = 0, far  # distances back
    while hidden - seen > 1:
        middle = (seen + hidden) // 2
        seen, hidden = (middle, hidden) if sees(far, far - middle) else (seen, middle)
    for query in (far + 1, far + hidden - 1, 2 * far - 1):  # chunks, unlike windows, do not move along
        if not sees(query, query - seen) or sees(query, query - hidden):
            return _NO_WINDOW
    return hidden


register_attention(PROBE, flat_attention, window_mask)
register_attention(NAME, flat_attention)
