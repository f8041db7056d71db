"""What a layer with a recurrent state keeps and returns, which is found by running it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.recurrent.discovery import FoundLayer
from faasmoe.model.dense.recurrent.layer_cache import ProbeCache
from faasmoe.model.dense.recurrent.trial import LayerAbility, results_of, try_layer
from faasmoe.model.state.recurrent_state import RecurrentSpec


@dataclass(frozen=True, slots=True)
class LayerForm:
    """A layer's state, what it can be given, and its results."""

    spec: RecurrentSpec
    ability: LayerAbility
    results: int | None  # of the tuple that it returns; None: it returns a tensor
    shapes: tuple[tuple[int, ...], ...]  # of results that have a row for each token, behind `[B, T]`

    def pack(self, returned: Any) -> Tensor:
        """What the layer returned for `[B, T]` tokens as one tensor, `[B, T, width]`."""
        results = results_of(returned)
        kept = [results[i].flatten(2) for i in self.ability.by_token]
        return kept[0] if len(kept) == 1 else torch.cat(kept, 2)

    def unpack(self, packed: Tensor) -> Any:
        """What `pack` has packed, as the layer returns it; None for a result that has no row for each token."""
        parts = packed.split([prod(shape) for shape in self.shapes], 2)
        results = [part.unflatten(2, shape) for part, shape in zip(parts, self.shapes, strict=True)]
        if self.results is None:
            return results[0]
        by_place = dict(zip(self.ability.by_token, results, strict=True))
        return tuple(by_place.get(i) for i in range(self.results))


def forms_of(layers: Iterable[FoundLayer]) -> list[LayerForm]:
    """Run each layer for a token or two, and one of each class for several.

    Raises `UnsupportedModel` if one is given, keeps or returns what is not served.
    """
    abilities: dict[type, LayerAbility] = {}
    forms = []
    for found in layers:
        found.call.check(found.name)
        kind = type(found.module)
        if kind not in abilities:
            abilities[kind] = try_layer(found, found.module.forward)
        forms.append(_form(found, abilities[kind]))
    return forms


def spec_of(found: FoundLayer) -> RecurrentSpec:
    """What a layer keeps of each sequence."""
    return _twice(found)[0].spec()


def _form(found: FoundLayer, ability: LayerAbility) -> LayerForm:
    cache, returned = _twice(found)
    results = results_of(returned)
    kept = [results[i] for i in ability.by_token]
    if len({result.dtype for result in kept}) > 1:
        dtypes = ", ".join(str(result.dtype) for result in kept)
        raise UnsupportedModel(f"{found.name} returns tensors of several dtypes, which is not served: {dtypes}")
    shapes = tuple(tuple(result.shape[2:]) for result in kept)
    return LayerForm(cache.spec(), ability, len(returned) if isinstance(returned, tuple) else None, shapes)


def _twice(found: FoundLayer) -> tuple[ProbeCache, Any]:
    """Run a layer for two tokens, because the second may come to another dtype than the first."""
    cache = ProbeCache()
    for _ in range(2):
        args, named = found.call.passed(found.call.tensors, cache)
        returned = found.module.forward(*args, **named)
    return cache, returned
