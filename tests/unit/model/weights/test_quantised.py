from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from faasmoe.errors import OptionError
from faasmoe.experts.dtypes import widened
from faasmoe.experts.mapping import map_array
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, make_plan
from faasmoe.util.folders.user_cache import CACHE
from tests.tiny import save_tiny
from tests.unit.experts.kernels.test_int4 import steps_and_zeros


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("tiny")
    for name in ("qwen2_moe", "gpt_oss", "mixtral"):
        save_tiny(name, base / name, dtype="bfloat16")
    for name in ("gpt_oss", "mixtral"):
        save_tiny(name, base / f"{name}_96", dtype="bfloat16", intermediate_size=96)
    save_tiny("qwen2_moe", base / "tied", tie_word_embeddings=True)
    save_tiny("qwen2_moe", base / "odd", moe_intermediate_size=24)
    return {path.name: path for path in base.iterdir()}


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def plan(folder: Path, quantize: str = "int8", **options: object) -> ModelPlan:
    return make_plan(resolve(str(folder)), 3, quantize=quantize, **options)  # type: ignore[arg-type]


def test_a_plan_writes_nothing(folders: dict[str, Path], cache: Path) -> None:
    made = plan(folders["qwen2_moe"])
    assert made.dtype == torch.bfloat16
    assert made.quantised is not None
    assert made.quantised.missing == made.quantised.nbytes > 0
    assert not cache.exists()


@pytest.mark.parametrize(
    ("quantize", "name"),
    [(quantize, name) for quantize in ("int8", "int4") for name in ("qwen2_moe", "gpt_oss_96", "mixtral_96")],
)
def test_every_expert_is_within_half_a_step_of_the_checkpoints(
    folders: dict[str, Path], quantize: str, name: str
) -> None:
    exact, made = make_plan(resolve(str(folders[name])), 3), plan(folders[name], quantize)
    assert made.quantised is not None
    made.quantised.make()
    for before, after in zip(exact.blocks, made.blocks, strict=True):
        assert before.name == after.name
        assert not after.artifact.form.transposed
        for plain, quantised in zip(before.artifact.weights, after.artifact.weights, strict=True):
            assert plain.biases == quantised.biases
            for was, now in zip(plain.matrices, quantised.matrices, strict=True):
                assert now.format == quantize
                check(now.map(), quantised_source(exact, was))


def check(matrix, weight: np.ndarray) -> None:
    """Weights that a group of int4 cuts off are as far as its last code."""
    if matrix.format == "int8":
        step = matrix.scale[:, None]
    else:
        step, zero = (each.repeat(32, 1) for each in steps_and_zeros(matrix.blocks, matrix.scale, 4))
        weight = weight.clip(-zero * step, (15 - zero) * step)
    assert (np.abs(matrix.exact() - weight) <= 0.501 * step).all()


def quantised_source(exact: ModelPlan, location) -> np.ndarray:
    weight = widened(map_array(location))
    return weight.T if exact.blocks[0].artifact.form.transposed else weight


def test_half_the_bytes(folders: dict[str, Path]) -> None:
    exact = make_plan(resolve(str(folders["mixtral"])), 3, "bfloat16")
    made = plan(folders["mixtral"])
    # a scale of 4 bytes for 64 weights or 48, where a real model has one for thousands
    assert 0.5 < made.function_bytes / exact.function_bytes < 0.55
    assert made.mapped
    head = made.linears["lm_head"]
    assert head.nbytes == 128 * 64 + 4 * 128
    saved = sum(location.values.nbytes - location.scale.nbytes for location in made.linears.values())
    assert made.dense_bytes == exact.dense_bytes - saved


def test_a_quarter_of_the_bytes_and_a_scale_for_32_weights(folders: dict[str, Path]) -> None:
    exact = make_plan(resolve(str(folders["mixtral_96"])), 3, "bfloat16")
    made = plan(folders["mixtral_96"], "int4")
    assert 4.5 / 16 < made.function_bytes / exact.function_bytes < 5 / 16  # 4 bytes more for each row of 64 or 96
    assert made.mapped


def test_the_head_of_int4_is_in_int6(folders: dict[str, Path]) -> None:
    for name in ("qwen2_moe", "tied"):
        made = plan(folders[name], "int4")
        assert {
            linear: location.format for linear, location in made.linears.items() if location.format != "int4"
        } == {"lm_head": "int6"}
        assert made.quantised is not None
        assert [file.path.stem for file in made.quantised.files][:2] == ["dense", "head"]
        made.quantised.make()
        head = made.linears["lm_head"].map()
        assert head.shape == (128, 64)
        assert np.abs(head.exact()).max() > 0


def test_what_chooses_and_weighs_experts_stays_as_it_is(folders: dict[str, Path]) -> None:
    for name in ("qwen2_moe", "mixtral"):
        linears = set(plan(folders[name]).linears)
        layers = [linear for linear in linears if linear.startswith("model.layers.1.")]
        assert {f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"} <= set(layers)
        assert not [linear for linear in linears if linear.endswith((".gate", "shared_expert_gate", "router"))]
    assert "model.layers.1.mlp.shared_expert.down_proj" in plan(folders["qwen2_moe"]).linears


def test_a_head_that_is_the_embedding_has_a_copy_of_its_own(folders: dict[str, Path]) -> None:
    made = plan(folders["tied"])
    assert made.linears["lm_head"].shape == (128, 64)
    assert "model.embed_tokens.weight" in made.layout.dense


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_a_copy_is_made_once(folders: dict[str, Path], quantize: str) -> None:
    first = plan(folders["qwen2_moe"], quantize).quantised
    assert first is not None
    told: list[int] = []
    first.make(told.append)
    assert first.missing == 0
    assert sum(told) == sum(place.nbytes for file in first.files for place in file.locations())
    again = plan(folders["qwen2_moe"], quantize).quantised
    assert again is not None
    assert again.folder == first.folder
    assert again.folder.parent.name == quantize
    states = [file.path.stat().st_mtime_ns for file in again.files]
    again.make()
    assert states == [file.path.stat().st_mtime_ns for file in again.files]
    again.files[1].path.unlink()
    assert again.missing == again.files[1].nbytes
    again.make()
    assert [states[0], *states[2:]] == [f.path.stat().st_mtime_ns for f in again.files if f is not again.files[1]]


def test_a_checkpoint_that_changed_has_another_copy_in_place_of_the_one_before(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders["qwen2_moe"], folder)
    before, other = plan(folder).quantised, plan(folders["mixtral"]).quantised
    assert before is not None
    assert other is not None
    before.make()
    other.make()
    save_tiny("qwen2_moe", folder)  # the same sizes
    after = plan(folder).quantised
    assert after is not None
    assert before.folder != after.folder
    with before.use():  # an old server still maps it
        after.make()
        assert before.folder.exists()
    after.files[0].path.unlink()
    after.make()
    assert not before.folder.exists()
    assert other.missing == after.missing == 0


def test_no_room_is_said_before_anything_is_written(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(folders["qwen2_moe"]).quantised
    assert made is not None
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OptionError, match=r"--quantize int8: int8 weights take .* GB left; .*FAASMOE_CACHE"):
        made.make()
    assert {path.name for path in made.folder.iterdir()} == {"copy.json", "lock", "used"}


def test_a_cache_that_cannot_be_written_is_named(folders: dict[str, Path], cache: Path) -> None:
    cache.write_text("a file where a folder should be")
    made = plan(folders["qwen2_moe"]).quantised
    assert made is not None
    with pytest.raises(OptionError, match=r"cannot be written to .*cache.*FAASMOE_CACHE"):
        made.make()


def test_experts_of_sizes_that_the_kernel_does_not_take_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(
        OptionError, match=r"--quantize int8: qwen2_moe has experts with 24 inputs.*multiples of 16"
    ):
        plan(folders["odd"])
    with pytest.raises(OptionError, match=r"--quantize int4: mixtral has experts with 48 inputs.*multiples of 32"):
        plan(folders["mixtral"], "int4")


def test_options_that_cannot_be_had_together(folders: dict[str, Path]) -> None:
    with pytest.raises(OptionError, match="--dtype float32: int8 weights compute in bfloat16"):
        plan(folders["qwen2_moe"], dtype="float32")
    with pytest.raises(OptionError, match="--quantize int3: must be int8, int4, or not"):
        make_plan(resolve(str(folders["qwen2_moe"])), 3, quantize="int3")
