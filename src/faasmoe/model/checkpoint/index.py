"""The index of a Hugging Face checkpoint: the place of every weight in the safetensors files, checked before use."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import FileState
from faasmoe.experts.formats import registry
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.checkpoint.header import read_header
from faasmoe.model.checkpoint.json_file import quoted
from faasmoe.model.checkpoint.weight_files import weight_files
from faasmoe.model.tensors import map_tensor, widened_tensor

log = logging.getLogger(__name__)


class Place(NamedTuple):
    """What a tensor is in the model."""

    parameter: str
    piece: str | None = None  # of experts' parameter, stacked: the tensor is all experts' part; None: all of it


class Checkpoint:
    """All tensors of a checkpoint folder, by name, with their bytes left on disk.

    After `recognised`, each quantised weight is one entry, and its arrays are no entries any more.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorLocation],
        quantised: Mapping[str, MatrixLocation] | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self.folder = folder  # or the GGUF file
        self._tensors = tensors
        self._quantised = quantised or {}
        self.places = (
            places or {}
        )  # of tensors whose place does not follow from their names as transformers has them

    @classmethod
    def open(cls, folder: Path, named: object = None) -> Checkpoint:
        """Index `folder` and check all its files. `named` is the config's `transformers_weights`.

        As in transformers the last of several files counts that hold a tensor, and an index may announce tensors that
        no file holds. Raises `CheckpointError` naming the file if one is missing, truncated, overlong or malformed.
        """
        if not folder.is_dir():
            raise CheckpointError(f"no such folder: {folder}")
        weights = weight_files(folder, named)
        tensors: dict[str, TensorLocation] = {}
        for file in weights.files:
            for name, location in read_header(file).items():
                if name in tensors:  # transformers takes the last one, too
                    log.warning(
                        "tensor %s is in both %s and %s; the latter is used", name, tensors[name].file, file
                    )
                tensors[name] = location
        lost = sorted(weights.announced - set(tensors))
        if lost:  # whether the model needs one of them is seen when they are told apart
            log.warning("%s announces %d tensors that no shard holds, the first is %s",
                        weights.index, len(lost), quoted(lost[0]))  # fmt: skip
        return cls(folder, tensors)

    def recognised(self, settings: Mapping[str, Any]) -> Checkpoint:
        """The same checkpoint, in which tensors that a registered weight format recognises are weights.

        `settings` are the config's (`model.config.quantization`). Raises `CheckpointError` if they declare a format
        and no weight is in it, or a format finds that tensors do not go together.
        """
        weights, tensors = registry.found(self._tensors, settings)
        if settings and not weights:
            format = registry.declared(settings)
            raise CheckpointError(
                f"{self.folder}: its config declares weights in the format {format.name if format else 'unknown'} "
                "(quantization_config), and its files hold none"
            )
        needless = len(self._tensors) - len(tensors) - sum(len(weight.parts) for weight in weights.values())
        if needless:
            log.info("%s: %d scales of activations are not used: rows and KV caches are not quantized",
                     self.folder, needless)  # fmt: skip
        return Checkpoint(self.folder, tensors, weights)

    @property
    def files(self) -> dict[Path, FileState]:
        """The files that hold tensors, as they were when they were indexed."""
        return {part.file: part.state for name in self for part in self.location(name).parts if part.state}

    def __iter__(self) -> Iterator[str]:
        yield from self._tensors
        yield from self._quantised

    def __len__(self) -> int:
        return len(self._tensors) + len(self._quantised)

    def location(self, name: str) -> MatrixLocation:
        """The location of the weight or tensor `name`. Raises `CheckpointError` if there is none."""
        return self._quantised[name] if name in self._quantised else self.plain(name)

    def plain(self, name: str) -> TensorLocation:
        """The location of the plain tensor `name`. Raises `CheckpointError` if there is none."""
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.folder} holds no tensor {name}") from None

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """The tensor `name`. Raises `CheckpointError` if there is none.

        A plain one is mapped read-only. A quantised one becomes numbers in `dtype`, by default float32.
        """
        location = self.location(name)
        if isinstance(location, TensorLocation):
            return map_tensor(location)
        return widened_tensor(location.map(), dtype or torch.float32)
