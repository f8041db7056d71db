"""Attention of several tokens of one sequence, or of one that our kernel does not take, over its keys and values."""

from __future__ import annotations

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
        keys, values, selected, length = keys[:, seen], values[:, seen], None, len(seen)
    elif selected is None and window and length >= count + window:  # nobody sees what lies before
        keys, values = keys[:, 1 - count - window :], values[:, 1 - count - window :]
        length = count + window - 1
    mask = None if count == 1 else visible_positions(count, length, window)
    if mask is not None and selected is not None:
        mask = mask & torch.zeros(count, length, dtype=torch.bool).scatter_(1, selected.long(), True)
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


def attend_apart(
    query: Tensor, keys: Tensor, values: Tensor, rule: Rule, selected: Tensor | None = None
) -> Tensor:
    """As `attend`, one token after the other."""
    count = query.shape[1]
    before = keys.shape[1] - count
    answers = [
        attend(
            query[:, i : i + 1],
            keys[:, : before + i + 1],
            values[:, : before + i + 1],
            rule,
            None if selected is None else selected[i : i + 1],
        )
        for i in range(count)
    ]
    return torch.cat(answers, 1)


def visible_positions(count: int, length: int, window: int | None) -> Tensor:
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
