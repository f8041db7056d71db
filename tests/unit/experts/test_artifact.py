from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.file_state import FileState
from faasmoe.experts.formats.int8 import Int8Location
from faasmoe.experts.mapping import TensorLocation

STATE, COPY_STATE = FileState(66, 1234, 5000, 1_700_000_000_000_000_001), FileState(66, 99, 300, 2)


def location(offset: int, *shape: int) -> TensorLocation:
    return TensorLocation(Path("/weights.safetensors"), offset, "BF16", shape, STATE)


ARTIFACT = Artifact(
    layer=3,
    experts=(4, 5),
    dtype="BF16",
    form=ExpertForm(Gate("swiglu_oai", limit=7.0, alpha=1.702), transposed=True, interleaved=True),
    weights=tuple(
        ExpertLocations(
            (location(o, 8, 12),), location(o + 192, 6, 8), (location(o + 300, 12),), location(o + 400, 8)
        )
        for o in (0, 1000)
    ),
)


def test_round_trip() -> None:
    assert Artifact.from_text(ARTIFACT.to_text()) == ARTIFACT


def test_sizes() -> None:
    assert ARTIFACT.nbytes == 2 * 2 * (8 * 12 + 6 * 8 + 12 + 8)
    assert ARTIFACT.hidden_size == 8


def test_files_are_written_once_with_their_states() -> None:
    content, table, end = ARTIFACT.to_text().split("\n")
    assert end == ""
    assert json.loads(table) == [["/weights.safetensors", 66, 1234, 5000, 1_700_000_000_000_000_001]]
    assert json.loads(content)["weights"][0]["down"] == {"format": "dense", "parts": [[0, 192, "BF16", [6, 8]]]}


def test_the_first_line_says_nothing_of_the_machine() -> None:
    content, _, _ = ARTIFACT.to_text().split("\n")
    there = [["/elsewhere/w", 1, 2, 3, 4]]
    moved = Artifact.from_text(f"{content}\n{json.dumps(there)}\n")
    down = moved.weights[1].down
    assert (down.file, down.state, down.offset) == (Path("/elsewhere/w"), FileState(1, 2, 3, 4), 1192)
    assert moved.to_text().split("\n")[0] == content


def test_a_file_that_was_not_there_when_it_was_located_is_looked_at_when_written(tmp_path: Path) -> None:
    file = tmp_path / "copy.safetensors"
    expert = ExpertLocations(
        (TensorLocation(file, 0, "BF16", (8, 12)),), TensorLocation(file, 192, "BF16", (6, 8))
    )
    artifact = replace(ARTIFACT, weights=(expert,))
    with pytest.raises(CheckpointError, match=r"copy\.safetensors"):
        artifact.to_text()
    file.write_bytes(bytes(288))
    assert Artifact.from_text(artifact.to_text()).weights[0].down.state == FileState.read(file)


@pytest.mark.parametrize("damage", [{"version": 2}, {"form": {}}, {"weights": [{}]}, {"layer": "x"}])
def test_damaged_artifacts_are_refused(damage: dict) -> None:
    content, table, _ = ARTIFACT.to_text().split("\n")
    with pytest.raises(CheckpointError, match="artifact"):
        Artifact.from_text(json.dumps({**json.loads(content), **damage}) + "\n" + table)


@pytest.mark.parametrize("table", ["", "[]", "[[1]]", "{", '[["/w", 1, 2, 3]]'])
def test_damaged_file_tables_are_refused(table: str) -> None:
    content, _, _ = ARTIFACT.to_text().split("\n")
    with pytest.raises(CheckpointError, match="artifact"):
        Artifact.from_text(f"{content}\n{table}")


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.json"):
        Artifact.read(tmp_path / "gone.json")


def test_matrices_in_eight_bits_are_counted_and_kept_as_such() -> None:
    def int8(offset: int, outs: int, ins: int) -> Int8Location:
        values = TensorLocation(Path("/copy.safetensors"), offset, "I8", (outs, ins), COPY_STATE)
        scale = TensorLocation(values.file, offset + outs * ins, "F32", (outs,), COPY_STATE)
        return Int8Location(values, scale)

    expert = ExpertLocations((int8(0, 8, 16),), int8(200, 6, 16), (location(0, 8),), location(16, 6))
    artifact = replace(ARTIFACT, experts=(4,), form=replace(ARTIFACT.form, transposed=False), weights=(expert,))
    assert Artifact.from_text(artifact.to_text()) == artifact
    assert artifact.nbytes == artifact.memory == (8 + 6) * (16 + 4) + 2 * (8 + 6)
    assert replace(artifact, dtype="F32").memory == artifact.nbytes  # what is widened is not copied
    assert artifact.hidden_size == 6
    assert len(list(expert)) == 6  # scales are ranges of a file too
