"""Attention of several tokens of one sequence, or of one that our kernel does not take, over its keys and values."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from faasmoe.model.dense.decode_kernel import Rule


def attend(query: Tensor, keys: Tensor, values: Tensor, rule: Rule, selected: Tensor | None = None) -> Tensor:
    """`query` `[heads, n, dim]`, the last n positions of `keys`, `values` `[kv_heads, length, dim]`.

    `selected` `[n, topk]` are the positions that each of the n attends to, as far as it may see them; None: all.
    """
    count, length, window = query.shape[1], keys.shape[1], rule.window
    if selected is not None and count == 1:
        seen = selected[0].long().sort().values  # in the order in which a mask has them
        keys, values, selected, length, window = keys[:, seen], values[:, seen], None, len(seen), 0
    elif selected is None and window and length >= count + window:  # nobody sees what lies before
        keys, values = keys[:, 1 - count - window :], values[:, 1 - count - window :]
        length = count + window - 1
    mask = _mask(count, length, window, selected)
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


def attend_shared(query: Tensor, keys: Tensor, values: Tensor, rule: Rule, selected: Tensor | None) -> Tensor:
    """As `attend`, for heads that share `keys` `[length, dim]` and `values` `[length, value_dim]`, without copies."""
    heads, count, dim = query.shape
    if selected is not None and count == 1:
        seen = selected[0].long().sort().values
        keys, values, selected, rule = keys[seen], values[seen], None, replace(rule, window=0)
    scores = (query.reshape(-1, dim) @ keys.T).view(heads, count, -1).float() * rule.scale
    weights = _weights(scores, _mask(count, len(keys), rule.window, selected), rule).to(values.dtype)
    return (weights.view(heads * count, -1) @ values).view(heads, count, -1)


def visible_positions(count: int, length: int, window: int) -> Tensor:
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
    weights = _weights((query @ keys.transpose(1, 2)).float() * rule.scale, mask, rule)
    return weights.to(values.dtype) @ values


def _mask(count: int, length: int, window: int, selected: Tensor | None) -> Tensor | None:
    """`[count, length]` bool: what each of the last `count` tokens attends to; None if that is all."""
    if count == 1 and selected is None and (not window or length <= window):
        return None
    mask = visible_positions(count, length, window)
    if selected is None:
        return mask
    return mask & torch.zeros(count, length, dtype=torch.bool).scatter_(1, selected.long(), True)


def _weights(scores: Tensor, mask: Tensor | None, rule: Rule) -> Tensor:
    """Scores `[heads, n, length]` float32 to weights."""
    length = scores.shape[2]
    if rule.softcap:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if rule.sinks is not None:  # a score that takes weight and gives no value
        sink = rule.sinks.float().reshape(-1, 1, 1).expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, sink], -1)
    return torch.softmax(scores, -1)[..., :length]
