"""Made-up layers that keep a sum of their inputs, some of which take less than others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from faasmoe.errors import UnsupportedModel
from faasmoe.model.dense.attention import FlatRow, Span
from faasmoe.model.dense.recurrent.found_layers import FoundLayers
from faasmoe.model.dense.recurrent.layer_form import forms_of
from faasmoe.model.dense.recurrent.recurrent_layer import take_over
from faasmoe.model.state.sequence_state import StateSpec

WIDTH = 3


class Sums(nn.Module):
    """The sum of all inputs so far."""

    layer_idx = 0

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        x = hidden if scale is None else hidden * scale
        before = None if cache_params is None else cache_params.get_recurrent_state(0)
        sums = x.cumsum(1) + (0 if before is None else before[:, None])
        if cache_params is not None:
            cache_params.update_recurrent_state(sums[:, -1], 0)
        return sums


class NoPrompts(Sums):
    """Forgets what was before if it gets several tokens, as layers that know prompts from the start only."""

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        if hidden.shape[1] > 1 and cache_params is not None:
            cache_params.update_recurrent_state(torch.zeros(len(hidden), WIDTH), 0)
        return super().forward(hidden, cache_params, scale)


class NoBatches(Sums):
    """Takes the first sequence's state for all."""

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        sums = super().forward(hidden, cache_params, scale)
        return sums[:1].expand_as(sums)


class Pairs(Sums):
    """Returns two results, of which one has no row for each token."""

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        sums = super().forward(hidden, cache_params, scale)
        return sums.unflatten(2, (WIDTH, 1)), sums[0, -1], -sums


class Wrong(Sums):
    """Is another layer for one token than for several."""

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        return super().forward(hidden, cache_params, scale) * (2 if hidden.shape[1] == 1 else 1)


class Asks(Sums):
    """Wants more of its cache than is served."""

    def forward(self, hidden: Tensor, cache_params: Any = None, scale: Tensor | None = None) -> Any:
        cache_params.update_indexer(hidden, 0)


def served(layer: Sums, **named: Tensor) -> tuple[nn.Module, FlatRow, StateSpec]:
    model, row = nn.Sequential(layer), FlatRow()
    with torch.inference_mode():
        with FoundLayers(model) as found:
            layer(torch.ones(1, 1, WIDTH), **named)
        take_over(found.recurrent, forms_of(found.recurrent), row)
    return layer, row, StateSpec(row.kinds)


@pytest.mark.parametrize("kind", [Sums, NoPrompts, NoBatches, Pairs])
def test_each_sequence_has_its_own_sum_however_its_tokens_come(kind: type[Sums]) -> None:
    layer, row, spec = served(kind())
    states = [spec.allocate() for _ in range(3)]
    for state in states:
        state.reserve(20)
    seen = [torch.zeros(0, WIDTH) for _ in states]
    for counts in ([4, 1, 2], [1, 1, 3], [1, 1, 1], [2, 1, 1]):
        new = [torch.randn(count, WIDTH) for count in counts]
        seen = [torch.cat(pair) for pair in zip(seen, new, strict=True)]
        row.spans = [Span(state, count) for state, count in zip(states, counts, strict=True)]
        result = layer(torch.cat(new)[None])
        if kind is Pairs:
            result, nothing, negative = result
            assert nothing is None
            assert torch.equal(result[..., 0], -negative)
            result = result[..., 0]
        wanted = [its.cumsum(0)[-count:] for its, count in zip(seen, counts, strict=True)]
        assert torch.allclose(result[0], torch.cat(wanted), atol=1e-5)


def test_other_tensors_are_divided_like_the_row() -> None:
    layer, row, spec = served(Sums(), scale=torch.ones(1, 1, 1))
    states = [spec.allocate(), spec.allocate()]
    for state in states:
        state.reserve(4)
    row.spans = [Span(state, 2) for state in states]
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1)
    sums = layer(torch.ones(1, 4, WIDTH), scale=scale)
    assert sums[0, :, 0].tolist() == [1, 3, 3, 7]


def test_a_layer_that_depends_on_how_tokens_come_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModel, match=r"0: its layer \(Wrong\) does not compute the same"):
        served(Wrong())


def test_a_tensor_without_a_row_for_each_token_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"no row for each token: \[3\] beside"):
        served(Sums(), scale=torch.ones(WIDTH))


def test_what_a_layer_asks_its_cache_for_is_told() -> None:
    with pytest.raises(AttributeError, match="a layer asks its cache for update_indexer, which is not served"):
        served(Asks())
