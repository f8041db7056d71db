"""The artifact of a function: a small JSON file that says where its experts' weights lie.

Weights are not copied into it: a function maps them from the checkpoint (or from a converted file where the
checkpoint's layout does not allow that). Format, version 1:

    {"version": 1, "layer": 3, "experts": [20, 21], "dtype": "BF16", "form": {...},
     "weights": [{"first": [[file, offset, dtype, shape], ...], "down": ..., ...}, ...]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.kernels import ExpertForm, Gate
from faasmoe.experts.mapping import TensorLocation

VERSION = 1


@dataclass(frozen=True, slots=True)
class ExpertLocations:
    """Where one expert's weights lie; the fields are those of `kernels.ExpertWeights`."""

    first: tuple[TensorLocation, ...]
    down: TensorLocation
    first_bias: tuple[TensorLocation, ...] = ()
    down_bias: TensorLocation | None = None

    def __iter__(self) -> Iterator[TensorLocation]:
        yield from self.first
        yield self.down
        yield from self.first_bias
        if self.down_bias:
            yield self.down_bias


@dataclass(frozen=True, slots=True)
class Artifact:
    """A block of experts, ready to be deployed."""

    layer: int
    experts: tuple[int, ...]  # indices within the layer
    dtype: str  # in which it computes
    form: ExpertForm
    weights: tuple[ExpertLocations, ...]  # one for each of `experts`

    @property
    def nbytes(self) -> int:
        """Bytes of weights."""
        return sum(location.nbytes for expert in self.weights for location in expert)

    @property
    def memory(self) -> int:
        """Bytes of weights once they are loaded, in the dtype in which they compute."""
        width = BY_NAME[self.dtype].itemsize
        return sum(prod(location.shape) * width for expert in self.weights for location in expert)

    @property
    def hidden_size(self) -> int:
        """Width of a token row."""
        rows, columns = self.weights[0].down.shape
        return columns if self.form.transposed else rows

    def to_json(self) -> str:
        """The artifact as text."""
        return json.dumps(
            {
                "version": VERSION,
                "layer": self.layer,
                "experts": self.experts,
                "dtype": self.dtype,
                "form": asdict(self.form),
                "weights": [_dump_expert(expert) for expert in self.weights],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Artifact:
        """Raises `CheckpointError` if `text` is not an artifact of this version."""
        try:
            raw = json.loads(text)
            if raw["version"] != VERSION:
                raise CheckpointError(f"artifact of version {raw['version']}, this code reads {VERSION}")
            return cls(
                layer=int(raw["layer"]),
                experts=tuple(raw["experts"]),
                dtype=raw["dtype"],
                form=ExpertForm(**{**raw["form"], "gate": Gate(**raw["form"]["gate"])}),
                weights=tuple(_load_expert(expert) for expert in raw["weights"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"not an artifact: {type(error).__name__} {error}") from error

    @classmethod
    def read(cls, path: Path) -> Artifact:
        """Raises `CheckpointError` if the file is missing or is not an artifact."""
        try:
            return cls.from_json(path.read_text())
        except OSError as error:
            raise CheckpointError(f"cannot read artifact {path}: {error.strerror}") from error


def _dump(location: TensorLocation) -> list[Any]:
    return [str(location.file), location.offset, location.dtype, location.shape]


def _load(raw: list[Any]) -> TensorLocation:
    return TensorLocation(Path(raw[0]), int(raw[1]), raw[2], tuple(raw[3]))


def _dump_expert(expert: ExpertLocations) -> dict[str, Any]:
    return {
        "first": [_dump(location) for location in expert.first],
        "down": _dump(expert.down),
        "first_bias": [_dump(location) for location in expert.first_bias],
        "down_bias": expert.down_bias and _dump(expert.down_bias),
    }


def _load_expert(raw: dict[str, Any]) -> ExpertLocations:
    return ExpertLocations(
        first=tuple(map(_load, raw["first"])),
        down=_load(raw["down"]),
        first_bias=tuple(map(_load, raw["first_bias"])),
        down_bias=raw["down_bias"] and _load(raw["down_bias"]),
    )
