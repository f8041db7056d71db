"""Attention over latents: absorbed for few tokens, with keys and values expanded for many.

In bfloat16 the two orders round differently, and differently from transformers, which always expands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from faasmoe.model.dense import whole
from faasmoe.model.dense.decode_kernel import Rule
from faasmoe.model.dense.latent import latent_decode
from faasmoe.model.dense.latent.latent_decode import Expansion, LatentDecode
from faasmoe.model.dense.linear.backend import linear

_AT_ONCE = 64 << 20  # bytes of scores, or of keys and values, that are there at once: heads come in groups


@dataclass(frozen=True, slots=True)
class LatentHeads:
    """Attends to latents (`heads.Heads`). Keys are `[1, T, rank + rope]`, and values have no width."""

    rule: Rule
    expansion: Expansion

    def supports(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """See `Heads`."""
        return latent_decode.supports(query, key, self.expansion)

    def decode(self, query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> LatentDecode:
        """See `Heads`."""
        return LatentDecode(query, key, out, self.expansion, self.rule)

    def empty(self, query: Tensor, value: Tensor) -> Tensor:
        """See `Heads`."""
        return query.new_empty(1, query.shape[2], query.shape[1], self.expansion.value_dim)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, selected: Tensor | None) -> Tensor:
        """See `Heads`. Heads come in groups, so that what is made of latents takes bounded memory."""
        heads, count, _ = query.shape
        latents, window = keys[0], self.rule.window
        if window and selected is None and len(latents) >= count + window:  # nobody sees what lies before
            latents = latents[1 - count - window :]
        expanded = self._expands(count)
        width = self.expansion.weight.shape[1] + self.expansion.rope if expanded else 2 * count
        group = max(1, _AT_ONCE // (4 * len(latents) * width))
        run = self._expanded if expanded else self._absorbed
        answers = [
            run(query[at : at + group], latents, slice(at, at + group), selected) for at in range(0, heads, group)
        ]
        return torch.cat(answers)

    def _expands(self, count: int) -> bool:
        """Whether keys and values of all positions take fewer products than `count` absorbed queries."""
        its = self.expansion
        saved = 2 * its.rank - its.nope - its.value_dim  # products of a query with a position
        return count * saved > its.rank * (its.nope + its.value_dim)

    def _expanded(self, query: Tensor, latents: Tensor, heads: slice, selected: Tensor | None) -> Tensor:
        its, weight = self.expansion, self.expansion.weight[heads]
        both = linear(latents[:, : its.rank].contiguous(), weight.flatten(0, 1), None)
        both = both.view(len(latents), len(weight), -1).transpose(0, 1)
        rope = latents[:, its.rank :].expand(len(weight), -1, -1)
        keys = torch.cat([both[..., : its.nope], rope], -1)
        return whole.attend(query, keys, both[..., its.nope :], self._rule(heads), selected)

    def _absorbed(self, query: Tensor, latents: Tensor, heads: slice, selected: Tensor | None) -> Tensor:
        its, weight = self.expansion, self.expansion.weight[heads]
        absorbed = torch.cat([query[..., : its.nope] @ weight[:, : its.nope], query[..., its.nope :]], -1)
        rule = self._rule(heads)
        sums = whole.attend_shared(absorbed, latents, latents[:, : its.rank], rule, selected)
        return sums @ weight[:, its.nope :].transpose(1, 2)

    def _rule(self, heads: slice) -> Rule:
        sinks = self.rule.sinks
        return self.rule if sinks is None else replace(self.rule, sinks=sinks[heads])
