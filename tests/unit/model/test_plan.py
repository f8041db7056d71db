"""A checkpoint in a weight format that only a test and one line of the registry know, from its files to its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from faasmoe.errors import CheckpointError, OptionError, UnsupportedModel
from faasmoe.experts.formats import REGISTERED, Registered
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense.linear.linears import FormatLinear
from faasmoe.model.plan import make_plan
from faasmoe.model.tensors import as_array
from faasmoe.util.folders.user_cache import CACHE
from tests.tiny import save_tiny
from tests.unit.experts.formats import made_up
from tests.unit.model.serving import computed, declare, reference

NAME, SHARD = made_up.FORMAT.name, "model.safetensors"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line that a format takes beside its module."""
    monkeypatch.setitem(REGISTERED, NAME, Registered(made_up.__name__, conversion=True))


def is_matrix(name: str) -> bool:
    """Whether it belongs to an expert or to a linear layer of the attention."""
    return name.endswith(("proj.weight", "experts.gate_up_proj", "experts.down_proj"))


def halves(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A weight `[..., out, in]` as the format's arrays, and the weight that these stand for."""
    matrices = [made_up.FORMAT.convert(as_array(matrix)) for matrix in weight.reshape(-1, *weight.shape[-2:])]
    values, scale, exact = (
        torch.from_numpy(np.stack(parts))
        for parts in zip(*((each.values, each.scale, each.exact()) for each in matrices), strict=True)
    )
    return values.view(weight.shape), scale.view(weight.shape[:-1]), exact.view(weight.shape)


def publish(model_type: str, folder: Path, exact: Path, *, declared: bool) -> None:
    """A tiny checkpoint in the format in `folder`, and the weights that it stands for in `exact`."""
    for place in (folder, exact):
        save_tiny(model_type, place)
    stored: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, tensor in load_file(exact / SHARD).items():
        stored[name] = plain[name] = tensor
        if is_matrix(name):
            stacked = tensor.dim() == 3  # [experts, in, out]: transposed, as only gpt_oss has it here
            values, scale, weight = halves(tensor.transpose(1, 2) if stacked else tensor)
            stored |= {name: values.contiguous(), f"{name}.rows": scale.contiguous()}
            plain[name] = (weight.transpose(1, 2) if stacked else weight).contiguous()
    save_file(stored, folder / SHARD, {"format": "pt"})
    save_file(plain, exact / SHARD, {"format": "pt"})
    if declared:
        declare(folder, {"quant_method": NAME})


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("model_type", ["qwen2_moe", "gpt_oss"])
def test_a_checkpoint_in_a_new_format_is_served(model_type: str, declared: bool, tmp_path: Path) -> None:
    folder, exact = tmp_path / "published", tmp_path / "exact"
    publish(model_type, folder, exact, declared=declared)
    plan = make_plan(resolve(str(folder)), 3, "float32")
    matrices = [matrix for block in plan.blocks for expert in block.artifact.weights for matrix in expert.matrices]
    assert {matrix.format for matrix in matrices} == {NAME}
    assert {location.format for location in plan.linears.values()} == {NAME}
    assert "model.layers.0.self_attn.q_proj" in plan.linears
    assert plan.mapped
    whole = make_plan(resolve(str(exact)), 3, "float32")
    assert plan.function_bytes < 0.7 * whole.function_bytes
    assert plan.dense_bytes < whole.dense_bytes
    assert make_plan(resolve(str(folder)), 3).dtype == torch.bfloat16

    model, logits = computed(plan, tmp_path / "functions")
    assert sum(type(layer) is FormatLinear for layer in model._model.modules()) == len(plan.linears)
    assert (logits - reference(exact)).abs().max() < 1e-4


def test_a_plain_checkpoint_is_converted_to_a_new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny("qwen2_moe", tmp_path / "plain")
    with monkeypatch.context() as patch:  # for the copy alone: compiled kernels are in this folder as well
        patch.setenv(CACHE, str(tmp_path / "cache"))
        plan = make_plan(resolve(str(tmp_path / "plain")), 3, quantize=NAME)
        assert plan.quantised is not None
        plan.quantised.make()
    _, logits = computed(plan, tmp_path / "functions")
    wanted = reference(tmp_path / "plain")
    # on average: where a router weighs two experts alike, bfloat16 may choose the other one
    assert (logits - wanted).abs().mean() < 0.005 * wanted.abs().max()


def test_a_checkpoint_in_a_format_is_not_converted_to_another(tmp_path: Path) -> None:
    publish("qwen2_moe", tmp_path / "published", tmp_path / "exact", declared=True)
    with pytest.raises(OptionError, match=r"--quantize int8: .* holds weights in the format half_rows already"):
        make_plan(resolve(str(tmp_path / "published")), 3, quantize="int8")


def test_a_declared_format_that_no_tensor_has_is_refused(tmp_path: Path) -> None:
    save_tiny("qwen2_moe", tmp_path)
    declare(tmp_path, {"quant_method": NAME})
    with pytest.raises(CheckpointError, match=r"declares weights in the format half_rows .* its files hold none"):
        make_plan(resolve(str(tmp_path)))


def test_without_its_line_the_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("qwen2_moe", tmp_path / "a", tmp_path / "exact", declared=True)
    publish("qwen2_moe", tmp_path / "b", tmp_path / "exact", declared=False)
    monkeypatch.delitem(REGISTERED, NAME)
    with pytest.raises(UnsupportedModel, match="quantized with half_rows, which no weight format reads"):
        make_plan(resolve(str(tmp_path / "a")))
    with pytest.raises(CheckpointError, match=r"weight\.rows has no place in qwen2_moe"):
        make_plan(resolve(str(tmp_path / "b")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj_bias", "biases of experts in the format half_rows"),
    ],
)
def test_what_cannot_be_read_in_a_format_is_refused_by_name(name: str, said: str, tmp_path: Path) -> None:
    save_tiny("gpt_oss", tmp_path)
    tensors = load_file(tmp_path / SHARD)
    values, scale, _ = halves(tensors[name])
    save_file(tensors | {name: values, f"{name}.rows": scale}, tmp_path / SHARD, {"format": "pt"})
    with pytest.raises(UnsupportedModel, match=said):
        make_plan(resolve(str(tmp_path)))
