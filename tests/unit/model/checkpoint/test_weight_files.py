"""Which files hold the weights: the same that transformers loads, or none if that cannot be told."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from transformers.modeling_utils import _get_resolved_checkpoint_files

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.weight_files import INDEX_FILE, SINGLE_FILE, weight_files

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def lay(folder: Path, *names: str, index: dict[str, str] | None = None, called: str = INDEX_FILE) -> None:
    for name in names:
        (folder / name).touch()
    if index is not None:
        (folder / called).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def by_transformers(folder: Path, named: str | None = None) -> set[str]:
    found, _ = _get_resolved_checkpoint_files(
        str(folder),
        variant=None,
        gguf_file=None,
        use_safetensors=None,
        user_agent=None,
        is_remote_code=False,
        transformers_explicit_filename=named,
    )
    return {Path(file).name for file in found or ()}


SHARDED = {"a": SHARDS[0], "b": SHARDS[1]}


@pytest.mark.parametrize(
    ("there", "index", "named"),
    [
        ([SINGLE_FILE], None, None),
        ([*SHARDS], SHARDED, None),
        ([SINGLE_FILE], SHARDED, None),  # an index that was left behind
        ([SINGLE_FILE, SHARDS[0]], SHARDED, None),
        ([SINGLE_FILE], {"a": SINGLE_FILE}, None),
        ([SINGLE_FILE, "other.safetensors"], None, "other.safetensors"),
        ([SINGLE_FILE, *SHARDS], SHARDED, INDEX_FILE),
        ([SINGLE_FILE, "model.fp16.safetensors", "consolidated.safetensors", "pytorch_model.bin"], None, None),
    ],
)
def test_the_order_is_that_of_transformers(
    tmp_path: Path, there: list[str], index: dict[str, str] | None, named: str | None
) -> None:
    lay(tmp_path, *there, index=index)
    assert {file.name for file in weight_files(tmp_path, named).files} == by_transformers(tmp_path, named)


def test_two_whole_sets_are_refused_by_name(tmp_path: Path) -> None:
    lay(tmp_path, SINGLE_FILE, *SHARDS, index=SHARDED)
    with pytest.raises(CheckpointError, match=rf"two sets of weights: {SINGLE_FILE}.* 2 shards of {INDEX_FILE}"):
        weight_files(tmp_path)


def test_an_index_that_is_not_used_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay(tmp_path, SINGLE_FILE, index=SHARDED)
    with caplog.at_level(logging.WARNING):
        weight_files(tmp_path)
    assert f"{INDEX_FILE} beside it names 2 shards, of which 2 are missing, and is not used" in caplog.text


def test_an_index_that_cannot_be_read_is_refused_beside_a_file(tmp_path: Path) -> None:
    """Whether it names another set of weights cannot be told."""
    lay(tmp_path, SINGLE_FILE)
    (tmp_path / INDEX_FILE).write_text("[")
    with pytest.raises(CheckpointError, match=rf"{INDEX_FILE} is not JSON"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "named", ["../x.safetensors", "x.bin", "", 7, ["a"], "a/b.safetensors", "gone.safetensors"]
)
def test_a_config_names_files_of_its_folder_only(tmp_path: Path, named: object) -> None:
    lay(tmp_path, SINGLE_FILE)
    with pytest.raises(CheckpointError, match="transformers_weights"):
        weight_files(tmp_path, named)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    lay(tmp_path, SHARDS[0], index=SHARDED)
    with pytest.raises(CheckpointError, match=rf"shard {SHARDS[1]} is missing .*2 shards are listed"):
        weight_files(tmp_path)
