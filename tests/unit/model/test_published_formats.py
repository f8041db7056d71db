"""Checkpoints in the formats in which others publish them, from their files to their logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, Mxfp4Config

from faasmoe.errors import CheckpointError, UnsupportedModel
from faasmoe.experts.formats.mxfp4 import E2M1
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from tests.tiny import save_tiny
from tests.unit.model.serving import computed, declare, reference

SHARD = "model.safetensors"
Arrays = dict[str, Tensor]


class Published(NamedTuple):
    """What configs say of a format, and how a matrix `[..., out, in]` becomes arrays, and which matrix these are."""

    format: str
    settings: Mapping[str, Any]
    arrays: Callable[[str, Tensor], tuple[Arrays, Tensor]]


def fp8(scale: Callable[[Tensor], Tensor], ending: str) -> Callable[[str, Tensor], tuple[Arrays, Tensor]]:
    def arrays(name: str, weight: Tensor) -> tuple[Arrays, Tensor]:
        scales = scale(weight)
        codes = (weight / spread(scales, weight)).to(torch.float8_e4m3fn)
        return {name: codes, name + ending: scales}, codes.float() * spread(scales, weight)

    return arrays


def block(weight: Tensor) -> Tensor:
    most = [[part.abs().max() for part in rows.split(128, 1)] for rows in weight.split(128)]
    return torch.tensor(most) / 448


def spread(scales: Tensor, weight: Tensor) -> Tensor:
    """A scale for each weight, of those for blocks, rows, or all."""
    if scales.dim() == 0 or scales.shape == (len(weight), 1):
        return scales.expand_as(weight)
    return scales.repeat_interleave(128, 0)[: len(weight)].repeat_interleave(128, 1)[:, : weight.shape[1]]


def row(weight: Tensor) -> Tensor:
    return weight.abs().amax(-1, keepdim=True) / 448


def overall(weight: Tensor) -> Tensor:
    return weight.abs().max() / 448


def nearest(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The codes of e2m1 nearest to `numbers` `[..., n]`, two a byte, and their numbers."""
    table = torch.from_numpy(E2M1)
    codes = (numbers[..., None] - table).abs().argmin(-1)
    return (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8), table[codes]


def mxfp4(name: str, weight: Tensor) -> tuple[Arrays, Tensor]:
    groups = weight.unflatten(-1, (-1, 32))
    exponent = torch.ceil(torch.log2(groups.abs().amax(-1, keepdim=True) / 6))
    codes, numbers = nearest(groups / 2**exponent)
    scales = (exponent.squeeze(-1) + 127).to(torch.uint8)
    return {f"{name}_blocks": codes, f"{name}_scales": scales}, (numbers * 2**exponent).flatten(-2)


def nvfp4(endings: tuple[str, str, str], inverse: bool) -> Callable[[str, Tensor], tuple[Arrays, Tensor]]:
    def arrays(name: str, weight: Tensor) -> tuple[Arrays, Tensor]:
        groups = weight.unflatten(-1, (-1, 16))
        whole = weight.abs().max() / (6 * 448)
        scales = (groups.abs().amax(-1, keepdim=True) / 6 / whole).to(torch.float8_e4m3fn)
        steps = scales.float() * whole
        codes, numbers = nearest(groups / steps)
        parts = (codes.flatten(-2), scales.squeeze(-1), (1 / whole if inverse else whole).reshape(1))
        return dict(zip((name + end for end in endings), parts, strict=True)), (numbers * steps).flatten(-2)

    return arrays


PUBLISHED = {
    "mxfp4": Published("mxfp4", {"quant_method": "mxfp4"}, mxfp4),
    "fp8 by block": Published(
        "fp8",
        {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
        fp8(block, "_scale_inv"),
    ),
    "fp8 by row": Published(
        "fp8", {"quant_method": "compressed-tensors", "format": "float-quantized"}, fp8(row, "_scale")
    ),
    "fp8": Published("fp8", {"quant_method": "modelopt", "quant_algo": "FP8"}, fp8(overall, "_scale")),
    "nvfp4": Published(
        "nvfp4",
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        nvfp4(("", "_scale", "_scale_2"), inverse=False),
    ),
    "nvfp4 packed": Published(
        "nvfp4_pack",
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        nvfp4(("_packed", "_scale", "_global_scale"), inverse=True),
    ),
}


def is_matrix(name: str, dense: bool) -> bool:
    expert = ".experts." in name and not name.endswith("_bias")
    return expert or (dense and name.endswith(("proj.weight", "proj_with_mqa.weight")))


def publish(model_type: str, published: Published, folder: Path, exact: Path, *, width: int = 64) -> None:
    """A tiny checkpoint in a format in `folder`, and the weights that it stands for in `exact`."""
    known = AutoConfig.for_model(model_type).to_dict()
    sizes = {"intermediate_size": 64, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
    sizes = {key: size for key, size in (sizes | {"hidden_size": width}).items() if key in known}
    for place in (folder, exact):
        save_tiny(model_type, place, **sizes)
    stored, plain = {}, {}
    for name, tensor in load_file(exact / SHARD).items():
        stored[name] = plain[name] = tensor
        if is_matrix(name, dense=model_type != "gpt_oss"):
            turned = model_type == "gpt_oss" and tensor.dim() == 3  # its experts are [in, out]
            del stored[name]
            arrays, weight = published.arrays(name, tensor.transpose(1, 2) if turned else tensor)
            stored |= {key: array.contiguous() for key, array in arrays.items()}
            plain[name] = (weight.transpose(1, 2) if turned else weight).contiguous()
    save_file(stored, folder / SHARD, {"format": "pt"})
    save_file(plain, exact / SHARD, {"format": "pt"})
    declare(folder, dict(published.settings))


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_checkpoint_is_served_as_it_is_published(name: str, declared: bool, tmp_path: Path) -> None:
    published = PUBLISHED[name]
    model_type = "gpt_oss" if name == "mxfp4" else "qwen2_moe"
    folder, exact = tmp_path / "published", tmp_path / "exact"
    publish(model_type, published, folder, exact)
    if not declared:
        declare(folder, None)
    plan = make_plan(resolve(str(folder)), 3, "float32")
    matrices = [matrix for block in plan.blocks for expert in block.artifact.weights for matrix in expert.matrices]
    assert {matrix.format for matrix in matrices} == {published.format}
    assert {location.format for location in plan.linears.values()} == (
        set() if name == "mxfp4" else {published.format}
    )
    assert plan.mapped
    _, logits = computed(plan, tmp_path / "functions")
    assert (logits - reference(exact)).abs().max() < 1e-4


def test_latent_attention_and_blocks_that_are_cut_off(tmp_path: Path) -> None:
    publish("deepseek_v3", PUBLISHED["fp8 by block"], tmp_path / "published", tmp_path / "exact", width=192)
    plan = make_plan(resolve(str(tmp_path / "published")), 3, "float32")
    assert any("kv_a_proj" in name for name in plan.linears)
    _, logits = computed(plan, tmp_path / "functions")
    assert (logits - reference(tmp_path / "exact")).abs().max() < 1e-4


def test_transformers_reads_the_same_weights(tmp_path: Path) -> None:
    publish("gpt_oss", PUBLISHED["mxfp4"], tmp_path / "published", tmp_path / "exact")
    plan = make_plan(resolve(str(tmp_path / "published")), 3, "float32")
    _, logits = computed(plan, tmp_path / "functions")
    wanted = reference(tmp_path / "published", quantization_config=Mxfp4Config(dequantize=True))
    assert (logits - wanted).abs().max() < 1e-4


def test_scales_of_activations_are_not_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    publish("qwen2_moe", PUBLISHED["fp8"], tmp_path / "published", tmp_path / "exact")
    tensors = load_file(tmp_path / "published" / SHARD)
    layer = "model.layers.1.self_attn.k_proj"
    more = {f"{layer}.input_scale": torch.tensor(0.1), f"{layer}.k_scale": torch.tensor(0.2)}
    save_file(tensors | more, tmp_path / "published" / SHARD, {"format": "pt"})
    make_plan(resolve(str(tmp_path / "published")))
    assert "2 scales of activations are not used" in caplog.text


def test_codes_without_their_scales_are_refused(tmp_path: Path) -> None:
    publish("qwen2_moe", PUBLISHED["fp8"], tmp_path / "published", tmp_path / "exact")
    tensors = load_file(tmp_path / "published" / SHARD)
    del tensors["model.layers.1.self_attn.q_proj.weight_scale"]
    save_file(tensors, tmp_path / "published" / SHARD, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"q_proj\.weight has the dtype F8_E4M3"):
        make_plan(resolve(str(tmp_path / "published")))


def test_scales_of_another_shape_are_refused(tmp_path: Path) -> None:
    publish("qwen2_moe", PUBLISHED["fp8 by row"], tmp_path / "published", tmp_path / "exact")
    tensors = load_file(tmp_path / "published" / SHARD)
    tensors["model.layers.1.self_attn.q_proj.weight_scale"] = torch.ones(7, 1)
    save_file(tensors, tmp_path / "published" / SHARD, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"are no weight in fp8"):
        make_plan(resolve(str(tmp_path / "published")))


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        {"quant_method": "fp8", "fmt": "e5m2"},
        {"quant_method": "compressed-tensors", "format": "marlin-24"},
        {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"},
        {"quant_method": "bitsandbytes"},
    ],
)
def test_what_no_format_reads_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path)
    declare(tmp_path, settings)
    with pytest.raises(
        UnsupportedModel, match=f"quantized with {settings['quant_method']}.*no weight format reads"
    ):
        make_plan(resolve(str(tmp_path)))
