"""Learns what each layer of a model sees and keeps, while the model runs one token."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from faasmoe.errors import UnsupportedModel
from faasmoe.model.architecture import Architecture
from faasmoe.model.dense import attention
from faasmoe.model.dense.attention import FlatRow, Span
from faasmoe.model.dense.recurrent.found_layers import FoundLayer, FoundLayers
from faasmoe.model.state.sequence_state import SequenceState

_STATELESS = {"moe", "mlp"}  # how transformers' configs name layers without attention, which keep nothing


class StateProbe:
    """In its context the model may run one token, by `run_token`. Attention is noted in `row`."""

    def __init__(self, architecture: Architecture, model: PreTrainedModel, text: nn.Module, row: FlatRow) -> None:
        """`row` is attached to `model`, of which `text` makes logits of tokens."""
        self._architecture, self._model, self._text, self._row = architecture, model, text, row
        self._found = FoundLayers(model)

    def __enter__(self) -> StateProbe:
        self._model.set_attn_implementation(attention.PROBE)
        self._row.spans, self._row.probing = [Span(SequenceState(), 1)], True
        self._found.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._found.__exit__(kind, error, at)
        self._row.spans, self._row.probing = [], False
        self._model.set_attn_implementation(attention.NAME)

    def run_token(self) -> Any:
        """What the model returns for one token. Raises whatever its code does."""
        ones = torch.ones(1, 1, dtype=torch.long, device=self._model.device)
        return self._text(input_ids=ones, position_ids=ones, attention_mask=ones, use_cache=False)

    def recurrent(self) -> list[FoundLayer]:
        """The layers that keep a recurrent state.

        Raises `UnsupportedModel` if one keeps nothing that is known, though its type says that it keeps something.
        """
        found = self._found.recurrent
        config = self._architecture.text_config
        types = getattr(config, "layer_types", None) or []
        stateless = {layer for layer, its in enumerate(types) if its in _STATELESS}
        attending = set(self._found.attending)
        recurrent = {each.layer for each in found} - attending
        every = {*range(int(config.num_hidden_layers)), *attending}
        if lacking := sorted(every - recurrent - stateless - set(self._row.windows)):
            raise UnsupportedModel(
                f"{self._architecture.name}: layers {', '.join(map(str, lacking))} have neither plain attention nor a "
                f"recurrent state that is served"
            )
        return found
