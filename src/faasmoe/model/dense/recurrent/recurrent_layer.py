"""A layer with a recurrent state, as transformers computes it, over a flat row of tokens from several sequences.

Each sequence's part of the row is a call of the layer with the sequence's state. Single tokens of several sequences
are one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from faasmoe.model.dense.attention import FlatRow
from faasmoe.model.dense.recurrent.found_layers import FoundLayer
from faasmoe.model.dense.recurrent.layer_cache import StepCache
from faasmoe.model.dense.recurrent.layer_form import LayerForm
from faasmoe.model.dense.recurrent.token_call import TokenCall
from faasmoe.model.dense.replay.operation import StateBoundary, visible
from faasmoe.model.state.recurrent_state import RecurrentState


@dataclass(frozen=True, slots=True)
class _Piece:
    """Tokens of the row that are one call: all of one sequence, or one of each."""

    states: list[RecurrentState]
    places: slice | Tensor  # in the row


class RecurrentLayer:
    """Stands in for the forward of a module of transformers."""

    def __init__(self, found: FoundLayer, form: LayerForm, row: FlatRow) -> None:
        self._name, self._signature = found.name, found.signature
        self._forward: Callable[..., Any] = found.module.forward
        self._form = form
        self._row = row

    def __call__(self, *args: Any, **named: Any) -> Any:
        """What the module returns for the row, whose tensors are `[1, T, ...]`."""
        call = self._signature.call(args, named)
        return self._form.unpack(visible(_Step(self, call), *call.tensors))

    def run(self, call: TokenCall, tensors: Sequence[Tensor]) -> Tensor:
        """The results of `call` with these tensors, `[1, T, width]`. States have seen the row's tokens then."""
        pieces = list(self._pieces())
        if len(pieces) == 1:
            return self._run(call, pieces[0].states, tensors)
        out: Tensor | None = None
        for piece in pieces:
            result = self._run(call, piece.states, [tensor[:, piece.places] for tensor in tensors])
            if out is None:
                out = result.new_empty(1, tensors[0].shape[1], result.shape[2])
            out[:, piece.places] = result
        assert out is not None  # noqa: S101 - for the type checker: a row has tokens
        return out

    def _pieces(self) -> Iterator[_Piece]:
        """The row in as few calls as the layer can be given."""
        accepts = self._form.accepts
        single: dict[int, RecurrentState] = {}
        start = 0
        for span in self._row.spans:
            state, end = span.state.layers[self._name], start + span.count
            if span.count == 1 and state.length and accepts.batches:
                single[start] = state
            elif state.length and not accepts.parts:
                yield from (_Piece([state], slice(at, at + 1)) for at in range(start, end))
            else:
                yield _Piece([state], slice(start, end))
            start = end
        if single:
            yield _Piece(list(single.values()), torch.tensor(list(single)))

    def _run(self, call: TokenCall, states: Sequence[RecurrentState], tensors: Sequence[Tensor]) -> Tensor:
        """`tensors` are `[1, T, ...]` of one sequence, or of as many sequences with a token each."""
        several = len(states) > 1
        count = 1 if several else tensors[0].shape[1]
        cache = StepCache(states, count)
        args, named = call.passed([tensor.transpose(0, 1) for tensor in tensors] if several else tensors, cache)
        result = self._form.pack(self._forward(*args, **named))
        cache.close()
        return result.transpose(0, 1) if several else result


@dataclass(frozen=True, slots=True)
class _Step(StateBoundary):
    """A call of a layer, as `replay.operation.Boundary`."""

    layer: RecurrentLayer
    call: TokenCall

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The tensors of the call to its results, `[1, T, width]`."""
        return self.layer.run(self.call, tensors)


def take_over(layers: Sequence[FoundLayer], forms: Sequence[LayerForm], row: FlatRow) -> None:
    """Put a `RecurrentLayer` in the place of each layer's forward, with a state for every sequence."""
    for found, form in zip(layers, forms, strict=True):
        found.module.__dict__["forward"] = RecurrentLayer(found, form, row)
        row.note_state(found.name, form.spec)
