from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssRMSNorm
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeRMSNorm

from faasmoe.model.dense import norms
from faasmoe.model.dense.norms import StepNorm, take_over
from tests.instruction_sets import on_each

instruction_set = on_each(norms)


class Halved(Qwen2MoeRMSNorm):
    """Like the others to look at, but not what it computes."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        half: Tensor = super().forward(hidden_states) / 2
        return half


class Gated(Qwen2MoeRMSNorm):
    def forward(self, hidden_states: Tensor, gate: Tensor) -> Tensor:
        gated: Tensor = super().forward(hidden_states * gate)
        return gated


def model_of(make: Callable[..., nn.Module], width: int, dtype: torch.dtype = torch.bfloat16) -> nn.Module:
    torch.manual_seed(width)
    norm = make(width, eps=1e-6)
    norm.weight = nn.Parameter(torch.randn(width), requires_grad=False)
    return nn.ModuleDict({"norm": norm}).to(dtype)


@pytest.mark.parametrize("make", [Qwen2MoeRMSNorm, GptOssRMSNorm, Gemma2RMSNorm])
@pytest.mark.parametrize("width", [8, 20, 2048])
@pytest.mark.parametrize("size", [1e-4, 1.0, 300.0])
def test_it_is_transformers_own(make: Callable[..., nn.Module], width: int, size: float) -> None:
    model = model_of(make, width)
    own, names = model["norm"], dict(model.named_parameters())
    take_over(model)
    assert isinstance(model["norm"], StepNorm)
    assert dict(model.named_parameters()).keys() == names.keys()
    x = (size * torch.randn(1, 5, 3, width)).bfloat16()
    for rows in (x, x.transpose(1, 2), x[:, :1, 0]):
        wanted, got = own(rows), model["norm"](rows)
        assert (got == wanted).float().mean() > 0.98
        torch.testing.assert_close(got, wanted, rtol=2**-7, atol=1e-30)


def test_rows_do_not_depend_on_each_other() -> None:
    model = model_of(Qwen2MoeRMSNorm, 96)
    take_over(model)
    x = torch.randn(7, 96).bfloat16()
    assert torch.equal(model["norm"](x)[3:4], model["norm"](x[3:4]))


def test_zeros_and_what_is_no_number_stay_in_their_rows() -> None:
    model = model_of(Qwen2MoeRMSNorm, 16)
    take_over(model)
    x = torch.zeros(3, 16).bfloat16()
    x[1, 4], x[2] = float("nan"), 1
    y = model["norm"](x)
    assert torch.equal(y[0], torch.zeros(16).bfloat16())
    assert y[1].isnan().all()
    torch.testing.assert_close(y[2], model["norm"].weight.data)


@pytest.mark.parametrize("make", [Halved, Gated])
def test_others_are_left_alone(make: Callable[..., nn.Module]) -> None:
    model = model_of(make, 64)
    take_over(model)
    assert type(model["norm"]) is make


def test_norms_in_float32_and_of_other_kinds_are_left_alone() -> None:
    model = nn.ModuleDict({
        "float32": model_of(Qwen2MoeRMSNorm, 64, torch.float32)["norm"],
        "layer": nn.LayerNorm(64, bias=False).bfloat16(),
        "embedding": nn.Embedding(3, 64).bfloat16(),
    })  # fmt: skip
    kinds = {name: type(module) for name, module in model.named_children()}
    take_over(model)
    assert {name: type(module) for name, module in model.named_children()} == kinds
    mixed = model_of(Qwen2MoeRMSNorm, 64)
    take_over(mixed)
    assert mixed["norm"](torch.ones(2, 64)).dtype == torch.float32  # as transformers' own
