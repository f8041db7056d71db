from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, context_length, make_plan
from tests.tiny import save_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    save_tiny("qwen2_moe", path)
    return path


def plan(folder: Path, block_size: int | None = None) -> ModelPlan:
    return make_plan(resolve(str(folder)), block_size)


def test_blocks_tile_every_layer_in_order(folder: Path) -> None:
    blocks = plan(folder, 3).blocks
    by_layer = {layer: [b.artifact.experts for b in blocks if b.artifact.layer == layer] for layer in (0, 1, 2)}
    assert set(map(tuple, by_layer.values())) == {((0, 1, 2), (3, 4, 5), (6, 7))}
    assert len({b.name for b in blocks}) == 9


def test_bytes_add_up_to_the_file(folder: Path) -> None:
    made = plan(folder, 3)
    weights = made.dense_bytes + sum(b.artifact.nbytes for b in made.blocks)
    size = (folder / "model.safetensors").stat().st_size
    assert 0 < size - weights < 100_000  # the header
    assert made.mapped


@pytest.mark.parametrize("size", [0, -1, 9])
def test_a_block_size_out_of_range_names_the_range(folder: Path, size: int) -> None:
    with pytest.raises(OptionError, match=f"--block-size {size}: must be 1 to 8"):
        plan(folder, size)


def test_a_small_layer_is_one_block_by_default(folder: Path) -> None:
    assert plan(folder).block_size == 8


def test_the_context_cannot_be_longer_than_the_models(folder: Path) -> None:
    made = plan(folder)
    assert context_length(made, None) == 256
    assert context_length(made, 100) == 100
    with pytest.raises(OptionError, match="--max-model-len 257: must be 2 to 256"):
        context_length(made, 257)
