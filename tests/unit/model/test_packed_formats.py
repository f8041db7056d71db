"""Checkpoints in int4 as AutoAWQ, GPTQModel and compressed-tensors publish them, from their files to their logits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.formats.packed.conversion import AWQ_ORDER
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.util.folders.user_cache import CACHE
from tests.tiny import save_tiny
from tests.unit.experts.formats.packed.test_conversion import packed
from tests.unit.model.serving import computed, declare, reference

SHARD, GROUP = "model.safetensors", 32
Arrays = dict[str, Tensor]


def words(codes: Tensor, order: tuple[int, ...] = tuple(range(8))) -> Tensor:
    """Codes `[n, 8 m]` in int32 `[n, m]`."""
    return torch.from_numpy(packed(codes.numpy(), order))


def awq(codes: Tensor, zeros: Tensor, scales: Tensor) -> Arrays:
    return {"qweight": words(codes.T, AWQ_ORDER), "qzeros": words(zeros.T, AWQ_ORDER), "scales": scales.T}


def gptq(codes: Tensor, zeros: Tensor, scales: Tensor) -> Arrays:
    order = torch.arange(codes.shape[1], dtype=torch.int32) // GROUP
    return {"qweight": words(codes).T, "qzeros": words(zeros.T - 1), "scales": scales.T, "g_idx": order}


def gptq_v2(codes: Tensor, zeros: Tensor, scales: Tensor) -> Arrays:
    return {"qweight": words(codes).T, "qzeros": words(zeros.T), "scales": scales.T}


def pack_quantized(codes: Tensor, zeros: Tensor, scales: Tensor) -> Arrays:
    shape = torch.tensor(codes.shape)
    return {
        "weight_packed": words(codes), "weight_scale": scales, "weight_zero_point": words(zeros.T).T,
        "weight_shape": shape,
    }  # fmt: skip


class Published(NamedTuple):
    settings: Mapping[str, Any]
    arrays: Callable[[Tensor, Tensor, Tensor], Arrays]


PUBLISHED = {
    "awq": Published({"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"}, awq),
    "gptq": Published({"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False}, gptq),
    "gptq_v2": Published({"quant_method": "gptq", "bits": 4, "checkpoint_format": "gptq_v2"}, gptq_v2),
    "pack_quantized": Published(
        {"quant_method": "compressed-tensors", "format": "pack-quantized"}, pack_quantized
    ),
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def quantised(weight: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """Codes, zeros of 1 to 15 and float16 scales of a weight, and the weight that they stand for."""
    groups = weight.unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scales = ((high - low) / 15).half()
    zeros = (-low / scales.float()).round().clamp(1, 15)
    codes = (groups / scales.float() + zeros).round().clamp(0, 15)
    exact = ((codes - zeros) * scales.float()).flatten(1)
    return (codes.flatten(1).int(), zeros.squeeze(-1).int(), scales.squeeze(-1)), exact


def publish(published: Published, folder: Path, exact: Path) -> None:
    sizes = {"intermediate_size": 64, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
    for place in (folder, exact):
        save_tiny("qwen2_moe", place, **sizes)
    stored, plain = {}, {}
    for name, tensor in load_file(exact / SHARD).items():
        if name.endswith("proj.weight"):
            arrays, weight = quantised(tensor)
            plain[name] = weight
            prefix = name.removesuffix("weight")
            stored |= {prefix + key: array.contiguous() for key, array in published.arrays(*arrays).items()}
        else:
            stored[name] = plain[name] = tensor
    save_file(stored, folder / SHARD, {"format": "pt"})
    save_file(plain, exact / SHARD, {"format": "pt"})
    declare(folder, dict(published.settings))


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_copy_is_made_once_and_served(name: str, tmp_path: Path) -> None:
    folder, exact = tmp_path / "published", tmp_path / "exact"
    publish(PUBLISHED[name], folder, exact)
    plan = make_plan(resolve(str(folder)), 3, "float32")
    assert plan.quantised is not None
    assert plan.quantised.missing == plan.quantised.nbytes
    plan.quantised.make()
    plan = make_plan(resolve(str(folder)), 3, "float32")
    assert plan.quantised is not None
    assert plan.quantised.missing == 0
    matrices = [matrix for block in plan.blocks for expert in block.artifact.weights for matrix in expert.matrices]
    assert {matrix.format for matrix in matrices} == {"grouped_int4"}
    assert plan.mapped
    assert {location.format for location in plan.linears.values()} == {"grouped_int4"}
    _, logits = computed(plan, tmp_path / "functions")
    assert (logits - reference(exact)).abs().max() < 1e-4


def test_a_file_beside_the_config_declares_gptq(tmp_path: Path) -> None:
    publish(PUBLISHED["gptq"], tmp_path / "published", tmp_path / "exact")
    declare(tmp_path / "published", None)
    with pytest.raises(
        CheckpointError, match=r"no weight format reads .*experts\.0\.down_proj\.g_idx, and the config"
    ):
        make_plan(resolve(str(tmp_path / "published")))
    (tmp_path / "published" / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": GROUP}))
    plan = make_plan(resolve(str(tmp_path / "published")))
    assert plan.quantised is not None
    assert plan.quantised.format.name == "grouped_int4"


def test_a_file_beside_the_config_that_declares_what_nobody_reads_is_refused(tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "W4A16_AWQ"}}))
    with pytest.raises(
        UnsupportedModel, match="quantized with modelopt, quant_algo W4A16_AWQ, which no weight format"
    ):
        make_plan(resolve(str(tmp_path)))


def test_columns_in_another_order_are_refused_when_the_copy_is_made(tmp_path: Path) -> None:
    publish(PUBLISHED["gptq"], tmp_path / "published", tmp_path / "exact")
    tensors = load_file(tmp_path / "published" / SHARD)
    for name in [name for name in tensors if name.endswith("g_idx")]:
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, tmp_path / "published" / SHARD, {"format": "pt"})
    plan = make_plan(resolve(str(tmp_path / "published")))
    assert plan.quantised is not None
    with pytest.raises(CheckpointError, match=r"a weight in gptq cannot be read: g_idx: .*desc_act"):
        plan.quantised.make()


def test_groups_that_kernels_cannot_read_are_refused(tmp_path: Path) -> None:
    publish(PUBLISHED["awq"], tmp_path / "published", tmp_path / "exact")
    tensors = load_file(tmp_path / "published" / SHARD)
    name = "model.layers.0.self_attn.q_proj."
    for array in ("scales", "qzeros"):
        tensors[name + array] = tensors[name + array].repeat(3, 1)[:3].contiguous()
    save_file(tensors, tmp_path / "published" / SHARD, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"3 groups in 64 columns: must be whole multiples of 32"):
        make_plan(resolve(str(tmp_path / "published")))


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "gptq", "bits": 8},
        {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
        {"quant_method": "awq", "bits": 4, "version": "gemv"},
    ],
)
def test_others_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path)
    declare(tmp_path, settings)
    with pytest.raises(
        UnsupportedModel, match=f"quantized with {settings['quant_method']}.*no weight format reads"
    ):
        make_plan(resolve(str(tmp_path)))
