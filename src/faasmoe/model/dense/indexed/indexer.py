"""Indexers over a flat row: which positions each token attends to, by scores that a layer's indexer gives them.

An indexer (DeepSeek-V3.2's "lightning indexer") is transformers' own module, which keeps keys of its own. It gets the
keys of one sequence at a time by the interface of transformers' caches, `update_indexer`. Up to `topk` positions it
selects all that a token may see, so it has only to make keys then, and makes those of all such sequences at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.attention import FlatRow, Span
from faasmoe.model.dense.replay.operation import StateBoundary, visible
from faasmoe.model.dense.whole import visible_positions
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateKey

_NAME = "indexer"  # of the module, in its attention
_ALL = -1  # instead of a position: all that the token may see
_WANTED = ("hidden_states", "q_resid", "position_embeddings", "attention_mask", "past_key_values")


class Indexer(nn.Module):
    """Stands in for the indexer of one layer."""

    notes_state = True  # for `model.dense.recurrent.found_layers`

    def __init__(self, own: nn.Module, layer: int, topk: int, row: FlatRow) -> None:
        super().__init__()
        self.own, self.topk = own, topk
        self._layer, self._row = layer, row

    def forward(
        self,
        hidden_states: Tensor,
        q_resid: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
    ) -> Tensor:
        """`hidden_states` `[1, T, H]`, `q_resid` `[1, T, rank]`, cos and sin `[1, T, dim]` to `[1, T, topk]` int32.

        These are positions, or -1 for a token that attends to all before it.
        """
        selection = Selection(self.own, self.topk, f"{self._layer}.{_NAME}", self._row)
        return visible(selection, hidden_states, q_resid, *position_embeddings)


@dataclass(frozen=True, slots=True)
class Selection(StateBoundary):
    """What an indexer selects for the row's tokens, as `replay.operation.Boundary`."""

    own: nn.Module
    topk: int
    key: StateKey
    row: FlatRow

    def __call__(self, *tensors: Tensor) -> Tensor:
        """See `Indexer.forward`."""
        if self.row.probing:
            self._probe(tensors)
        count, device = tensors[0].shape[1], tensors[0].device
        out = torch.full((1, count, self.topk), _ALL, dtype=torch.int32, device=device)
        if out.is_meta:  # a rehearsal
            return out
        dense: list[tuple[Span, slice]] = []
        start = 0
        for span in self.row.spans:
            here = slice(start, start + span.count)
            if span.state.layers[self.key].length + span.count <= self.topk:
                dense.append((span, here))
            else:
                for some in _in_parts(here, apart=span.apart):
                    out[0, some] = self._selected(span, [each[:, some] for each in tensors])
            start = here.stop
        if dense:
            self._keep(dense, tensors)
        return out

    def _selected(self, span: Span, tensors: Sequence[Tensor]) -> Tensor:
        """`[n, topk]` for n tokens of one sequence with more than `topk` positions."""
        cache = span.state.layers[self.key]
        count = tensors[0].shape[1]

        def update(key: Tensor) -> Tensor:
            keys: Tensor = cache.append(key, key[..., :0])[0]
            return keys

        mask = visible_positions(count, cache.length + count, 0)
        selected: Tensor = self._run(tensors, mask, update)[0]
        return selected

    def _keep(self, dense: Sequence[tuple[Span, slice]], tensors: Sequence[Tensor]) -> None:
        """Add the keys of these tokens to their sequences' states, and score nothing."""
        if sum(span.count for span, _ in dense) < tensors[0].shape[1]:
            tensors = [torch.cat([each[:, here] for _, here in dense], 1) for each in tensors]

        def update(key: Tensor) -> Tensor:
            parts = torch.split(key, [span.count for span, _ in dense], 1)
            for (span, _), part in zip(dense, parts, strict=True):
                span.state.layers[self.key].append(part, part[..., :0])
            return key[:, :0]

        self._run(tensors, torch.ones(1, 0, dtype=torch.bool), update)

    def _run(self, tensors: Sequence[Tensor], mask: Tensor, update: Callable[[Tensor], Tensor]) -> Tensor:
        hidden, resid, cos, sin = tensors
        keys = _Keys(update)
        selected: Tensor = self.own(hidden, resid, (cos, sin), mask[None], None, past_key_values=keys)
        return selected

    def _probe(self, tensors: Sequence[Tensor]) -> None:
        """Note the keys that a sequence keeps, and see that the indexer selects `topk` of more.

        Raises `UnsupportedModel` if it does something else.
        """
        kept: list[Tensor] = []

        def update(key: Tensor) -> Tensor:
            kept.append(key)
            return key.new_zeros(1, self.topk + 1, key.shape[-1])

        selected = self._run(tensors, torch.ones(1, 1, dtype=torch.bool, device=tensors[0].device), update)
        if len(kept) != 1 or kept[0].dim() != 3 or selected.shape != (1, 1, self.topk):
            raise UnsupportedModel(f"layer {self.key} does something else than to select {self.topk}")
        self.row.note_state(self.key, KVCacheSpec.like(kept[0], kept[0][..., :0]))


@dataclass(frozen=True, slots=True)
class _Keys:
    """What an indexer takes for transformers' cache."""

    update: Callable[[Tensor], Tensor]

    def update_indexer(self, keys: Tensor, layer: int) -> Tensor:
        """Add keys `[1, n, dim]`. Returns all of the sequence."""
        return self.update(keys)


def _in_parts(rows: slice, *, apart: bool) -> list[slice]:
    return [slice(at, at + 1) for at in range(rows.start, rows.stop)] if apart else [rows]


def take_over(model: nn.Module, row: FlatRow) -> bool:
    """Put an `Indexer` in the place of every indexer of `model`. Returns whether there is one.

    Raises `UnsupportedModel` for an indexer with another interface than this module knows.
    """
    found = [module for module in model.modules() if isinstance(getattr(module, _NAME, None), nn.Module)]
    for attention in found:
        owner: Any = attention
        own: nn.Module = owner.indexer
        layer, topk = getattr(own, "layer_idx", None), getattr(own, "index_topk", None)
        known = set(_WANTED) <= inspect.signature(own.forward).parameters.keys()
        if not known or type(layer) is not int or type(topk) is not int or topk < 1:
            name = getattr(getattr(model, "config", None), "model_type", "the model")
            raise UnsupportedModel(f"{name}: {type(own).__name__} is an indexer of a kind that is not served")
        owner.indexer = Indexer(own, layer, topk, row)
    return bool(found)


class AnyMask(dict[str, Tensor]):
    """Stands in for the masks that a model with indexers makes whatever its attention is. Nobody looks at them."""

    _MASK = torch.zeros(1, 1, 1, 1)

    def __missing__(self, kind: str) -> Tensor:
        return self._MASK
