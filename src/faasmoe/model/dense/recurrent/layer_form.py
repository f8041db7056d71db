"""What a layer with a recurrent state keeps and returns, which is found by running it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.recurrent.found_layers import FoundLayer
from faasmoe.model.dense.recurrent.trial import AcceptedCalls, results_of, try_layer
from faasmoe.model.state.recurrent_state import RecurrentSpec


@dataclass(frozen=True, slots=True)
class LayerForm:
    """A layer's state, what it can be given, and its results."""

    spec: RecurrentSpec
    accepts: AcceptedCalls
    results: int | None  # of the tuple that it returns; None: it returns a tensor
    shapes: tuple[tuple[int, ...], ...]  # of results that have a row for each token, behind `[B, T]`

    def pack(self, returned: Any) -> Tensor:
        """What the layer returned for `[B, T]` tokens as one tensor, `[B, T, width]`."""
        results = results_of(returned)
        kept = [results[i].flatten(2) for i in self.accepts.by_token]
        return kept[0] if len(kept) == 1 else torch.cat(kept, 2)

    def unpack(self, packed: Tensor) -> Any:
        """What `pack` has packed, as the layer returns it; None for a result that has no row for each token."""
        parts = torch.split_with_sizes(packed, [prod(shape) for shape in self.shapes], 2)
        results = [part.reshape(*part.shape[:2], *shape) for part, shape in zip(parts, self.shapes, strict=True)]
        if self.results is None:
            return results[0]
        by_place = dict(zip(self.accepts.by_token, results, strict=True))
        return tuple(by_place.get(i) for i in range(self.results))


def forms_of(layers: Sequence[FoundLayer]) -> list[LayerForm]:
    """Run each layer for a token or two, and one of each class for several.

    Raises `UnsupportedModel` if one is given, keeps or returns what is not served.
    """
    accepted: dict[type, AcceptedCalls] = {}
    forms = []
    for found, spec in zip(layers, specs_of(layers), strict=True):
        found.call.check(found.name)
        kind = type(found.module)
        if kind not in accepted:
            accepted[kind] = try_layer(found, found.module.forward)
        forms.append(_form(found, spec, accepted[kind]))
    return forms


def specs_of(layers: Iterable[FoundLayer]) -> list[RecurrentSpec]:
    """What each layer keeps of a sequence. Of those of a class that have kept the same of a token, one runs another."""
    known: dict[tuple[type, RecurrentSpec], RecurrentSpec] = {}
    specs = []
    for found in layers:
        kind = type(found.module), found.cache.spec()
        if kind not in known:
            _second(found)
            known[kind] = found.cache.spec()
        specs.append(known[kind])
    return specs


def _form(found: FoundLayer, spec: RecurrentSpec, accepts: AcceptedCalls) -> LayerForm:
    returned = _second(found)
    results = results_of(returned)
    kept = [results[i] for i in accepts.by_token]
    if len({result.dtype for result in kept}) > 1:
        dtypes = ", ".join(str(result.dtype) for result in kept)
        raise UnsupportedModel(f"{found.name} returns tensors of several dtypes, which is not served: {dtypes}")
    shapes = tuple(tuple(result.shape[2:]) for result in kept)
    return LayerForm(spec, accepts, len(returned) if isinstance(returned, tuple) else None, shapes)


def _second(found: FoundLayer) -> Any:
    """What a layer returns for one more token, whose state may come to another dtype than the first one's."""
    args, named = found.call.passed(found.call.tensors, found.cache)
    return found.module.forward(*args, **named)
