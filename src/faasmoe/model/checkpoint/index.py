"""The index of a Hugging Face checkpoint: every tensor's place in the safetensors files, checked before use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import FileState
from faasmoe.experts.mapping import TensorLocation, map_tensor
from faasmoe.model.checkpoint.header import read_header
from faasmoe.model.checkpoint.json_file import quoted, read_json
from faasmoe.model.checkpoint.weight_files import weight_files


class Checkpoint:
    """All tensors of a checkpoint folder, by name, with their bytes left on disk."""

    def __init__(self, folder: Path, tensors: dict[str, TensorLocation]) -> None:
        self.folder = folder
        self._tensors = tensors

    @classmethod
    def open(cls, folder: Path, named: object = None) -> Checkpoint:
        """Index `folder` and check all its files. `named` is the config's `transformers_weights`.

        Raises `CheckpointError` naming the file if one is missing, truncated, overlong or malformed.
        """
        if not folder.is_dir():
            raise CheckpointError(f"no such folder: {folder}")
        weights = weight_files(folder, named)
        tensors: dict[str, TensorLocation] = {}
        for file in weights.files:
            for name, location in read_header(file).items():
                if name in tensors:
                    raise CheckpointError(f"tensor {name} is in both {tensors[name].file} and {file}")
                tensors[name] = location
        lost = sorted(weights.announced - set(tensors))
        if lost:
            raise CheckpointError(
                f"{weights.index} announces {len(lost)} tensors that no shard holds, the first is {quoted(lost[0])}"
            )
        return cls(folder, tensors)

    @property
    def files(self) -> dict[Path, FileState]:
        """The files that hold tensors, as they were when they were indexed."""
        return {location.file: location.state for location in self._tensors.values() if location.state}

    def config(self) -> dict[str, Any]:
        """The content of config.json. Raises `CheckpointError` if it is missing or malformed."""
        return read_json(self.folder / "config.json")

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def location(self, name: str) -> TensorLocation:
        """Where tensor `name` lies. Raises `CheckpointError` if there is none."""
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.folder} holds no tensor {name}") from None

    def tensor(self, name: str) -> Tensor:
        """Tensor `name`, mapped read-only."""
        return map_tensor(self.location(name))
