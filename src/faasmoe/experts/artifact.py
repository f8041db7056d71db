"""The artifact of a function: a small file that says where its experts' weights lie.

Weights are not copied into it: a function maps them from the checkpoint, or from its quantised copy. Version 5 has two
lines of JSON. The first says nothing of the machine, so it is the same wherever the function runs; the second, the
*file table*, says where the files are here, and is replaced where they are elsewhere (`FunctionSpec`):

    {"version": 5, "layer": 3, "experts": [20, 21], "dtype": "BF16", "form": {...}, "weights":
     [{"first": [MATRIX, ...], "down": MATRIX, "first_bias": [PLACE, ...], "down_bias": PLACE or null}, ...]}
    [[path, device, inode, size, mtime in ns], ...]

A PLACE is `[number of the file, offset, dtype, shape]`, a MATRIX `{"format": name, "parts": [PLACE, ...]}`: a weight
format (`formats.registry`) and the weight's arrays. A file that is not in the state that the table has noted is not
mapped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.file_state import FileState, open_regular
from faasmoe.experts.formats import registry
from faasmoe.experts.formats.base import MatrixLocation
from faasmoe.experts.mapping import TensorLocation

VERSION = 5


@dataclass(frozen=True, slots=True)
class ExpertLocations:
    """The locations of one expert's weights; the fields are those of `kernels.ExpertWeights`."""

    first: tuple[MatrixLocation, ...]
    down: MatrixLocation
    first_bias: tuple[TensorLocation, ...] = ()
    down_bias: TensorLocation | None = None

    @property
    def matrices(self) -> tuple[MatrixLocation, ...]:
        """The matrices of both layers, in order."""
        return (*self.first, self.down)

    @property
    def biases(self) -> tuple[TensorLocation, ...]:
        """The biases of both layers, if they have some."""
        return (*self.first_bias, *((self.down_bias,) if self.down_bias else ()))

    def __iter__(self) -> Iterator[TensorLocation]:
        """Every array, scales too."""
        for matrix in self.matrices:
            yield from matrix.parts
        yield from self.biases

    def memory(self, width: int) -> int:
        """Bytes once they are loaded, in a model that computes in a dtype of `width` bytes."""
        return sum(location.memory(width) for location in (*self.matrices, *self.biases))


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
        """Bytes of weights once they are loaded: plain ones in the dtype in which they compute."""
        return sum(expert.memory(BY_NAME[self.dtype].itemsize) for expert in self.weights)

    @property
    def hidden_size(self) -> int:
        """Width of a token row."""
        rows, columns = self.weights[0].down.shape
        return columns if self.form.transposed else rows

    def to_text(self) -> str:
        """The artifact as two lines of JSON.

        A file that had not been written when its tensors were located is looked at now. Raises `CheckpointError` if it
        is not there.
        """
        files = _states(location for expert in self.weights for location in expert)
        numbers = {file: number for number, file in enumerate(files)}
        content = {
            "version": VERSION,
            "layer": self.layer,
            "experts": self.experts,
            "dtype": self.dtype,
            "form": asdict(self.form),
            "weights": [_dump_expert(expert, numbers) for expert in self.weights],
        }
        table = [[str(file), *astuple(state)] for file, state in files.items()]
        return f"{json.dumps(content)}\n{json.dumps(table)}\n"

    @classmethod
    def from_text(cls, text: str) -> Artifact:
        """Raises `CheckpointError` if `text` is not an artifact of this version."""
        try:
            content, _, table = text.partition("\n")
            raw = json.loads(content)
            if raw["version"] != VERSION:
                raise CheckpointError(f"artifact of version {raw['version']}, this code reads {VERSION}")
            files = [(Path(path), FileState(*map(int, state))) for path, *state in json.loads(table)]
            return cls(
                layer=int(raw["layer"]),
                experts=tuple(raw["experts"]),
                dtype=raw["dtype"],
                form=ExpertForm(**{**raw["form"], "gate": Gate(**raw["form"]["gate"])}),
                weights=tuple(_load_expert(expert, files) for expert in raw["weights"]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CheckpointError(f"not an artifact: {type(error).__name__} {error}") from error

    @classmethod
    def read(cls, path: Path | str) -> Artifact:
        """Raises `CheckpointError` if the file is missing or is not an artifact."""
        try:
            fd, state = open_regular(path)
            try:
                text = os.read(fd, state.size).decode()
            finally:
                os.close(fd)
        except OSError as error:
            raise CheckpointError(f"cannot read artifact {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"not an artifact: {error}") from error
        return cls.from_text(text)


def _states(locations: Iterator[TensorLocation]) -> dict[Path, FileState]:
    states: dict[Path, FileState] = {}
    for location in locations:
        if location.file not in states:
            try:
                states[location.file] = location.state or FileState.read(location.file)
            except OSError as error:
                raise CheckpointError(f"cannot read {location.file}: {error.strerror}") from error
    return states


def _dump_matrix(location: MatrixLocation, numbers: dict[Path, int]) -> dict[str, Any]:
    return {"format": location.format, "parts": [_dump(part, numbers) for part in location.parts]}


def _dump(location: TensorLocation, numbers: dict[Path, int]) -> list[Any]:
    return [numbers[location.file], location.offset, location.dtype, location.shape]


_Files = Sequence[tuple[Path, FileState]]


def _load_matrix(raw: dict[str, Any], files: _Files) -> MatrixLocation:
    return registry.by_name(raw["format"]).location([_load(part, files) for part in raw["parts"]])


def _load(raw: list[Any], files: _Files) -> TensorLocation:
    file, state = files[raw[0]]
    return TensorLocation(file, int(raw[1]), raw[2], tuple(raw[3]), state)


def _dump_expert(expert: ExpertLocations, numbers: dict[Path, int]) -> dict[str, Any]:
    return {
        "first": [_dump_matrix(location, numbers) for location in expert.first],
        "down": _dump_matrix(expert.down, numbers),
        "first_bias": [_dump(location, numbers) for location in expert.first_bias],
        "down_bias": expert.down_bias and _dump(expert.down_bias, numbers),
    }


def _load_expert(raw: dict[str, Any], files: _Files) -> ExpertLocations:
    return ExpertLocations(
        first=tuple(_load_matrix(place, files) for place in raw["first"]),
        down=_load_matrix(raw["down"], files),
        first_bias=tuple(_load(place, files) for place in raw["first_bias"]),
        down_bias=raw["down_bias"] and _load(raw["down_bias"], files),
    )
