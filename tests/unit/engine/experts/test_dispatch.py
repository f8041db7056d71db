from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from faasmoe.engine.experts.dispatch import Dispatch, deploy, write_functions
from faasmoe.errors import CheckpointChanged, DeadlineExceeded, FunctionError
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.layer_experts import Meanwhile
from faasmoe.model.plan import ModelPlan, make_plan
from tests.platforms import InProcessPlatform
from tests.tiny import save_tiny

T, K, E = 6, 2, 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("tiny")
    return folder, save_tiny("mixtral", folder)


def started(
    tiny: tuple[Path, object], tmp_path: Path, block_size: int
) -> tuple[ModelPlan, InProcessPlatform, Dispatch]:
    plan, platform = make_plan(resolve(str(tiny[0])), block_size), InProcessPlatform()
    platform.deploy(write_functions(plan.blocks, tmp_path))
    return plan, platform, Dispatch(platform, plan.blocks)


def routing() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    index = torch.stack([torch.randperm(E, generator=generator)[:K] for _ in range(T)])
    return torch.randn(T, 64, generator=generator), index, torch.rand(T, K, generator=generator)


@pytest.mark.parametrize("block_size", [1, 3, 8])
def test_sums_equal_transformers_own_experts(tiny: tuple, tmp_path: Path, block_size: int) -> None:
    _, platform, dispatch = started(tiny, tmp_path, block_size)
    hidden, index, weight = routing()
    with torch.no_grad():
        wanted = tiny[1].model.layers[1].mlp.experts(hidden, index, weight)
    assert torch.allclose(dispatch(1, hidden, index, weight), wanted, atol=1e-5)
    touched = {f"layer-01-block-{e // block_size:02}" for e in index.flatten().tolist()}
    assert set(platform.calls) == dispatch.counts.functions_touched == touched
    assert len(platform.calls) == dispatch.counts.invocations == len(touched)
    assert dispatch.counts.cold_starts == len(touched)


def test_masked_slots_are_skipped(tiny: tuple, tmp_path: Path) -> None:
    _, platform, dispatch = started(tiny, tmp_path, 4)
    hidden, index, weight = routing()
    masked = index.clone()
    masked[:, 1] = E
    weightless = weight.clone()
    weightless[:, 1] = 0
    assert torch.allclose(dispatch(0, hidden, masked, weight), dispatch(0, hidden, index, weightless), atol=1e-6)
    platform.calls.clear()
    assert not dispatch(0, hidden, torch.full_like(index, E), weight).any()
    assert platform.calls == []


def test_bfloat16_rows_come_back_rounded_once(tiny: tuple, tmp_path: Path) -> None:
    _, _, dispatch = started(tiny, tmp_path, 1)
    hidden, index, weight = routing()
    rounded = hidden.bfloat16()
    got = dispatch(0, rounded, index, weight)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, dispatch(0, rounded.float(), index, weight).bfloat16())


def test_a_functions_error_names_it(tiny: tuple, tmp_path: Path) -> None:
    _, _, dispatch = started(tiny, tmp_path, 8)
    _, index, weight = routing()
    with pytest.raises(
        FunctionError, match="layer-00-block-00 failed with PayloadError: rows of width 5"
    ) as caught:
        dispatch(0, torch.ones(T, 5), index, weight)
    assert caught.value.kind == "PayloadError"


def test_the_deadline_reaches_the_platform(tiny: tuple, tmp_path: Path) -> None:
    plan, platform, _ = started(tiny, tmp_path, 8)
    with pytest.raises(DeadlineExceeded):
        Dispatch(platform, plan.blocks, deadline=-1)(0, *routing())


def test_a_call_that_fails_because_a_file_has_changed_says_so(tiny: tuple, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny[0], tmp_path / "copy")
    plan, platform = make_plan(resolve(str(folder)), 4), InProcessPlatform()
    platform.deploy(write_functions(plan.blocks, tmp_path))
    dispatch = Dispatch(platform, plan.blocks, files=plan.files())
    shard, kept = folder / "model.safetensors", folder / "kept"
    shard.rename(kept)
    shutil.copy2(kept, shard)
    for _ in range(3):
        with pytest.raises(CheckpointChanged, match=r"model\.safetensors was replaced .* restart the server"):
            dispatch(0, *routing())
    assert len(platform.calls) == 2  # functions of the layer: only the first time
    kept.replace(shard)
    assert dispatch(0, *routing()).any()


def test_files_that_are_changed_under_a_running_model_end_its_steps(tiny: tuple, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny[0], tmp_path / "copy")
    plan, platform = make_plan(resolve(str(folder)), 4), InProcessPlatform()
    platform.deploy(write_functions(plan.blocks, tmp_path))
    seconds = [1.0]
    dispatch = Dispatch(platform, plan.blocks, files=plan.files(), clock=lambda: seconds[0])
    dispatch(0, *routing())
    shard = folder / "model.safetensors"
    os.utime(shard, ns=(1, shard.stat().st_mtime_ns + 1))
    dispatch(0, *routing())  # it is not looked at again yet
    seconds[0] += 1.1
    for _ in range(3):  # also at once after it was found
        with pytest.raises(CheckpointChanged, match=r"model\.safetensors was written to"):
            dispatch(0, *routing())


@pytest.mark.parametrize(("parallelism", "calls"), [(1, 1), (2, 2), (64, E)])
def test_the_work_of_a_layer_is_cut_as_the_platform_computes_side_by_side(
    tiny: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallelism: int, calls: int
) -> None:
    monkeypatch.setattr("faasmoe.engine.experts.dispatch.WORTH_SPLITTING", 1)
    plan, platform = make_plan(resolve(str(tiny[0])), E), InProcessPlatform()
    platform.capabilities = replace(platform.capabilities, parallelism=parallelism)
    deploy(platform, write_functions(plan.blocks, tmp_path))
    assert {spec.concurrency for spec in platform.specs} == {min(parallelism, E)}
    everyone = torch.arange(E)[:, None]
    Dispatch(platform, plan.blocks)(0, torch.ones(E, 64), everyone, torch.ones(E, 1))
    assert len(platform.calls) == calls


@pytest.mark.parametrize("worth_sharing", [0, 1 << 30])
@pytest.mark.parametrize("top_k", [1, 5, E])
def test_a_cut_block_gives_the_bits_of_a_whole_one(
    tiny: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth_sharing: int, top_k: int
) -> None:
    monkeypatch.setattr("faasmoe.engine.experts.dispatch.WORTH_SPLITTING", 1)
    plan, platform = make_plan(resolve(str(tiny[0])), E), InProcessPlatform()
    deploy(platform, write_functions(plan.blocks, tmp_path))
    generator = torch.Generator().manual_seed(top_k)
    for rows in (1, 2, 9):
        index = torch.stack([torch.randperm(E, generator=generator)[:top_k] for _ in range(rows)])
        step = torch.randn(rows, 64, generator=generator), index, torch.rand(rows, top_k, generator=generator)
        answers = []
        for parallelism in (1, 2, 3, 64):
            platform.capabilities = replace(
                platform.capabilities, shared_memory=True, parallelism=parallelism, worth_sharing=worth_sharing
            )
            answers.append(Dispatch(platform, plan.blocks)(0, *step))
        assert all(torch.equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize(("parallelism", "ran"), [(1, 0), (2, 1)])
def test_other_work_is_done_meanwhile_if_the_platform_has_room_for_more_calls(
    tiny: tuple, tmp_path: Path, parallelism: int, ran: int
) -> None:
    plan, platform = make_plan(resolve(str(tiny[0])), E), InProcessPlatform()
    platform.capabilities = replace(platform.capabilities, parallelism=parallelism)
    deploy(platform, write_functions(plan.blocks, tmp_path))
    done: list[int] = []
    Dispatch(platform, plan.blocks)(0, *routing(), Meanwhile(lambda: done.append(1)))
    assert len(done) == ran
