"""Recorded routing: the experts that a model picked for each token."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.errors import OptionError
from faasmoe.model.dense.layer_experts import Meanwhile, RoutedExperts

_VERSION = 1


@dataclass(frozen=True, eq=False)  # compared by identity, so that curves of one trace are computed once
class RecordedActivations:
    """Experts of T consecutive tokens, `[T, K]` for each layer that has experts, in order of layers."""

    layers: tuple[NDArray[np.int32], ...]

    def hits(self, layer: int, experts: int, block_size: int) -> NDArray[np.bool_]:
        """The blocks of a layer that each token uses, as booleans `[T, blocks]`. A masked slot (index E) uses none."""
        index = self.layers[layer]
        hits = np.zeros((len(index), -(-experts // block_size)), dtype=bool)
        rows = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
        real = index < experts
        hits[rows[real], index[real] // block_size] = True
        return hits

    def check(self, experts: list[int]) -> None:
        """Raises `OptionError` if these are not of a model with so many experts in its layers."""
        if len(experts) != len(self.layers):
            raise OptionError(
                f"the activations are of {len(self.layers)} layers with experts, the model has {len(experts)}"
            )
        for number, (index, most) in enumerate(zip(self.layers, experts, strict=True)):
            if index.size and (index.min() < 0 or index.max() > most):
                raise OptionError(
                    f"the activations of layer {number} name expert {index.max()}, but there are {most} in the model"
                )

    def save(self, file: Path) -> None:
        """Save as a numpy archive."""
        arrays = {f"layer-{number:03}": index for number, index in enumerate(self.layers)}
        with file.open("wb") as stream:
            np.savez_compressed(stream, version=np.array(_VERSION), **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path) -> RecordedActivations:
        """Raises `OptionError` on anything that `save` did not write."""
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                version = int(archive["version"])
                layers = tuple(archive[name] for name in sorted(set(archive.files) - {"version"}))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise OptionError(f"{file}: holds no recorded activations: {error}") from error
        if version != _VERSION or not layers:
            raise OptionError(f"{file}: holds activations of version {version}; this one reads {_VERSION}")
        if any(index.ndim != 2 or index.dtype.kind != "i" or len(index) != len(layers[0]) for index in layers):
            raise OptionError(
                f"{file}: layers must be [tokens, experts of each] of integers, all of as many tokens"
            )
        return cls(layers)


@dataclass
class Recorder:
    """Stands before whatever runs routed experts and notes which they are."""

    routed: RoutedExperts
    _seen: dict[int, list[NDArray[np.int32]]] = field(default_factory=dict)

    def __call__(self, layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
        """See `RoutedExperts`."""
        self._seen.setdefault(layer, []).append(index.numpy().astype(np.int32))
        return self.routed(layer, hidden, index, weight, meanwhile)

    def activations(self) -> RecordedActivations:
        """Everything so far."""
        return RecordedActivations(tuple(np.concatenate(self._seen[layer]) for layer in sorted(self._seen)))
