from __future__ import annotations

import json
from pathlib import Path

import pytest

from faasmoe.errors import CheckpointError
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.kernels import ExpertForm, Gate
from faasmoe.experts.mapping import TensorLocation


def location(offset: int, *shape: int) -> TensorLocation:
    return TensorLocation(Path("/weights.safetensors"), offset, "BF16", shape)


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
    assert Artifact.from_json(ARTIFACT.to_json()) == ARTIFACT


def test_sizes() -> None:
    assert ARTIFACT.nbytes == 2 * 2 * (8 * 12 + 6 * 8 + 12 + 8)
    assert ARTIFACT.hidden_size == 8


@pytest.mark.parametrize("damage", [{"version": 1}, {"form": {}}, {"weights": [{}]}, {"layer": "x"}])
def test_damaged_artifacts_are_refused(damage: dict) -> None:
    text = json.dumps({**json.loads(ARTIFACT.to_json()), **damage})
    with pytest.raises(CheckpointError, match="artifact"):
        Artifact.from_json(text)


def test_a_missing_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.json"):
        Artifact.read(tmp_path / "gone.json")
