"""The dense part: everything of a model but its routed experts, as transformers builds it.

The model class is built without its experts' parameters and loaded with tensors mapped from the checkpoint;
its attention and its experts are called through transformers' registries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from faasmoe.errors import CheckpointError, UnsupportedModel, brief
from faasmoe.experts.formats.base import Matrix, MatrixLocation
from faasmoe.model.adapter.classes import hollow_class, load
from faasmoe.model.adapter.experts import is_experts
from faasmoe.model.adapter.registries import register_experts
from faasmoe.model.adapter.unregistered_experts import run_by
from faasmoe.model.architecture import Architecture
from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.dense import norms, rotary, routers
from faasmoe.model.dense.attention import FlatRow, Span, attends_by_token
from faasmoe.model.dense.indexed import indexer
from faasmoe.model.dense.latent import expansions
from faasmoe.model.dense.layer_experts import LayerExperts, Meanwhile, RoutedExperts
from faasmoe.model.dense.linear.backend import linear_backend
from faasmoe.model.dense.linear.linears import Crew
from faasmoe.model.dense.overlap import Overlapped, overlap
from faasmoe.model.dense.recurrent.layer_form import forms_of
from faasmoe.model.dense.recurrent.recurrent_layer import take_over
from faasmoe.model.dense.replay.operation import visible
from faasmoe.model.dense.replay.replayer import Replayer
from faasmoe.model.dense.soundness import blame, check_small
from faasmoe.model.dense.state_probe import StateProbe
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.model.weights.layout import Layout, dense_tensors

EXPERTS_NAME = "faasmoe_functions"


class DenseModel:
    """A model that computes everything but its routed experts, which it is given by `start`.

    Until then it runs without them and has no threads, so that a process that has loaded it can be forked.
    """

    def __init__(self, model: PreTrainedModel, architecture: Architecture, weights: Mapping[str, Matrix]) -> None:
        self._model = model
        self._text = model.get_submodule(architecture.part.name)  # tokens to logits
        self._crew = Crew()
        self._crew.take_over(model, weights)
        routers.take_over(model, self._crew)
        norms.take_over(model)
        rotary.take_over(model)
        expansions.take_over(model)
        self._architecture = architecture
        self._overlapped = self._overlap()
        self._replayer: Replayer | None = None  # from `start` on, whose threads its programs run on
        self._row = FlatRow()
        self._masks = indexer.AnyMask() if indexer.take_over(model, self._row) else None
        self._row.attach(model)
        self.experts_per_token = 0  # K of the layer that has most
        self._probe()

    @classmethod
    def load(
        cls,
        architecture: Architecture,
        layout: Layout,
        checkpoint: Checkpoint,
        dtype: torch.dtype,
        quantised: Mapping[str, MatrixLocation] | None = None,
    ) -> DenseModel:
        """Map the dense weights. Those whose dtype or layout must change are copied.

        The weights of the linear layers `quantised` are mapped from there instead of from the checkpoint.
        Raises `CheckpointError` if a weight is missing, of the wrong shape, or not finite.
        """
        quantised = quantised or {}
        tensors = {name: checkpoint.tensor(name, dtype) for name in dense_tensors(layout, quantised)}
        hollow = hollow_class(architecture.model_class, is_experts, quantised, architecture.part.absent)
        try:
            model, lacking = load(hollow, architecture.config, tensors, dtype)
        except Exception as error:  # conversions raise whatever they run into
            raise CheckpointError(
                f"{checkpoint.folder}: its weights do not make a {architecture.name}: {brief(error)}"
            ) from error
        prefixes = tuple(f"{experts.name}." for experts in architecture.experts)
        elsewhere = {f"{name}.weight" for name in quantised}
        missing = sorted(key for key in lacking - elsewhere if not key.startswith(prefixes))
        if missing:
            raise CheckpointError(
                f"{checkpoint.folder} lacks {len(missing)} tensors of the dense part, the first is {missing[0]}"
            )
        check_small(model)
        model.eval().requires_grad_(False)
        model.set_experts_implementation(EXPERTS_NAME)
        run_by(model, _call_routed)
        return cls(model, architecture, {name: location.map() for name, location in quantised.items()})

    def start(self, routed: RoutedExperts, threads: int) -> None:
        """Run steps on `threads` threads from now on, with these experts."""
        self._crew.start(threads)
        self._replayer = Replayer(self._transformers)
        self.route_to(routed)

    def route_to(self, routed: RoutedExperts) -> None:
        """Have `routed` run the experts from now on. Not while a step runs."""
        layers = {experts.name: experts.layer for experts in self._architecture.experts}
        for name, module in self._model.named_modules():
            if name in layers:
                layer = layers[name]
                module.__dict__["routed"] = LayerExperts(routed, layer, self._overlapped[layer], self._crew)
        if self._replayer is not None:
            self._replayer.forget()  # its programs call those of before

    def _overlap(self) -> dict[int, list[Overlapped]]:
        """Shared experts by layer."""
        modules = dict(self._model.named_modules())
        return {
            experts.layer: overlap(modules[experts.name.rpartition(".")[0]], modules[experts.name])
            for experts in self._architecture.experts
        }

    @torch.inference_mode()
    def _probe(self) -> None:
        """Run one token without experts, to learn each layer's window, and that all calls go through the registries.

        Raises `UnsupportedModel` if a layer's attention or experts were not called through the registries, or the
        token cannot be run; `CheckpointError` if NaN comes of it.
        """
        name = self._architecture.name
        called: set[int] = set()
        sound = True

        def note(layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
            nonlocal sound
            called.add(layer)
            sound = sound and bool(weight.isfinite().all())
            for shared in self._overlapped[layer]:
                shared.learn(hidden)
            self.experts_per_token = max(self.experts_per_token, index.shape[1])
            return torch.zeros_like(hidden)

        self.route_to(note)
        probe = StateProbe(self._architecture, self._model, self._text, self._row)
        try:
            with self._crew.learning(), probe:
                out = probe.run_token()
        except Exception as error:  # model classes raise whatever their code runs into
            raise UnsupportedModel(f"{name}: one token cannot be run: {brief(error)}") from error
        finally:
            self.route_to(_no_experts)
        if not sound or out.logits.isnan().any():  # infinite ones are how some models say never
            blame(self._model)
            raise UnsupportedModel(
                f"{name}: NaN comes of one token, though all weights of its dense part are finite"
            )
        recurrent = probe.recurrent()
        take_over(recurrent, forms_of(recurrent), self._row)
        context = self._architecture.context_length
        if (chunk := min(self._row.chunks.values(), default=context)) < context:
            raise UnsupportedModel(
                f"{name}: its layers see {chunk} positions at a time, fewer than its context of {context}"
            )
        if called != {experts.layer for experts in self._architecture.experts}:
            raise UnsupportedModel(f"{name}: only the experts of layers {sorted(called)} are called")

    @torch.inference_mode()
    def forward(self, tokens: list[int], positions: list[int], spans: list[Span], wanted: list[int]) -> Tensor:
        """Run a flat row of T tokens of several sequences.

        `spans` divides the row into sequences, in order; their states are extended. Returns the logits of the
        rows `wanted`, `[len(wanted), vocabulary]` float32.
        """
        self._row.spans = spans
        self._crew.begin(len(tokens))
        try:
            with linear_backend(len(tokens)):
                inputs = [torch.tensor([tokens]), torch.tensor([positions]), torch.tensor(wanted)]
                if self._replayer is not None and len(wanted) == len(tokens) and attends_by_token(spans):
                    logits = self._replayer.run(len(tokens), inputs)
                else:
                    logits = self._transformers(inputs)
        finally:
            self._row.spans = []  # keeps no sequence alive
        return logits[0].to(torch.float32, copy=True)  # a replayed step's are overwritten by the next

    def _transformers(self, inputs: Sequence[Tensor]) -> Tensor:
        """Tokens and positions `[1, T]`, and rows that are wanted, to logits `[1, rows, vocabulary]`."""
        tokens, positions, wanted = inputs
        out = self._text(
            input_ids=tokens,
            attention_mask=self._masks,
            position_ids=positions,
            use_cache=False,
            logits_to_keep=wanted,
        )
        logits: Tensor = out.logits
        if logits.shape[1] != len(wanted):  # some classes know no `logits_to_keep`
            logits = logits[:, wanted]
        return logits

    @property
    def vocabulary(self) -> int:
        """Tokens that it has embeddings for: ids from 0 to one less."""
        return int(self._architecture.text_config.vocab_size)

    @property
    def state_spec(self) -> StateSpec:
        """The kinds of state that a sequence keeps, by layer."""
        return StateSpec(self._row.kinds)


def _no_experts(layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
    return torch.zeros_like(hidden)


def _call_routed(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    routed: LayerExperts = module.routed
    return visible(routed, hidden_states, top_k_index, top_k_weights)


register_experts(EXPERTS_NAME, _call_routed)
