from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.header import read_header
from faasmoe.model.checkpoint.index import Checkpoint

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4, dtype=torch.bfloat16)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in TENSORS}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("kind", ["folder", "sharded"])
def test_tensors_are_what_was_saved(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = Checkpoint.open(request.getfixturevalue(kind))
    assert sorted(checkpoint) == ["a", "b"]
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensor(name), tensor)
    with pytest.raises(CheckpointError, match="no tensor c"):
        checkpoint.tensor("c")


def test_a_truncated_file_is_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        Checkpoint.open(folder)


def test_an_overlong_file_is_named(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is overlong"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "b.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard b\.safetensors is missing"):
        Checkpoint.open(sharded)


def test_a_shard_may_lack_a_tensor_that_nobody_asks_for(sharded: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({"c": TENSORS["b"]}, sharded / "b.safetensors")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"]["as\nit"] = "b.safetensors"
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = Checkpoint.open(sharded)
    assert set(checkpoint) == {"a", "c"}
    assert r"announces 2 tensors that no shard holds, the first is 'as\nit'" in caplog.text
    with pytest.raises(CheckpointError, match="holds no tensor b"):
        checkpoint.tensor("b")


def test_of_a_tensor_in_two_shards_the_last_one_counts(sharded: Path, caplog: pytest.LogCaptureFixture) -> None:
    """So does transformers, which reads shards in the order of their names."""
    save_file({"a": TENSORS["a"] + 1, "b": TENSORS["b"]}, sharded / "b.safetensors")
    assert torch.equal(Checkpoint.open(sharded).tensor("a"), TENSORS["a"] + 1)
    assert "tensor a is in both" in caplog.text


def test_shards_stay_in_the_folder(sharded: Path) -> None:
    index = {"weight_map": {"a": "../a.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not a plain file name"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, "needs 12 bytes"),
        ({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, "unknown dtype F99|malformed"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "starts at byte"),
        (
            {
                "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            },
            "starts at byte",
        ),
        ({"a": 5}, "malformed"),
        ([1], "malformed"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: object, said: str) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(CheckpointError, match=said):
        read_header(tmp_path / "x")


@given(st.binary(max_size=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused_or_holds_nothing(tmp_path: Path, noise: bytes) -> None:
    (tmp_path / "noise").write_bytes(noise)
    outcome: object
    try:
        outcome = read_header(tmp_path / "noise")
    except CheckpointError as error:
        outcome = str(error)
    assert outcome == {} or "noise" in str(outcome)


def test_a_folder_without_weights_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        Checkpoint.open(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        Checkpoint.open(tmp_path / "gone")
