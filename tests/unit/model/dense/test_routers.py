from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.dense import routers
from faasmoe.model.dense.dense import DenseModel
from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.linears import Crew
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.plan import make_plan
from tests.instruction_sets import on_each
from tests.tiny import save_tiny

instruction_set = on_each(matvec, team)


class Router(nn.Module):
    """As transformers' routers."""

    def __init__(self, dtype: torch.dtype, biased: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 64).to(dtype))
        self.bias = nn.Parameter(torch.randn(12).to(dtype)) if biased else None

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(F.linear(x, self.weight, self.bias), -1)


class Widened(Router):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float())


class Scaled(Router):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), F.normalize(self.weight.float()))


def taken_over(router: nn.Module) -> nn.Module:
    routers.take_over(nn.ModuleList([router]), Crew())
    return router


@torch.inference_mode()
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_router_has_the_bits_of_our_kernels(dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    router = Router(dtype, biased)
    for shape in ((1, 64), (2, 3, 64)):
        x = torch.randn(shape).to(dtype)
        its = router.forward(x)
        ours = taken_over(router)(x)
        wanted = linear_rows(x.view(-1, 64), router.weight, router.bias).view(*shape[:-1], 12)
        assert torch.equal(ours, wanted.softmax(-1))
        assert torch.allclose(ours.float(), its.float(), atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_router_that_widens_its_weight_keeps_it_wide_once_that_is_known(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    router, crew = Widened(dtype), Crew()
    own = router.weight.float()
    routers.take_over(nn.ModuleList([router]), crew)
    with crew.learning():
        router(torch.randn(1, 64).to(dtype))
    assert router.weight.dtype == torch.float32
    assert torch.equal(router.weight, own)
    assert list(router.state_dict()) == ["weight"]
    x = torch.randn(9, 64).to(dtype)
    assert torch.equal(router(x), linear_rows(x.float(), own))
    assert torch.equal(router(x)[3:4], router(x[3:4]))  # which torch's product has not


@torch.inference_mode()
def test_what_is_not_its_own_weight_is_left_to_torch() -> None:
    torch.manual_seed(0)
    router, crew, x = Scaled(torch.bfloat16), Crew(), torch.randn(1, 64).bfloat16()
    wanted = router(x)
    routers.take_over(nn.ModuleList([router]), crew)
    with crew.learning():
        assert torch.equal(router(x), wanted)
    assert torch.equal(router(x), wanted)
    assert "forward" in router.__dict__  # it was taken over nevertheless
    assert router.weight.dtype == torch.bfloat16
    double = Router(torch.float64)
    assert "forward" not in taken_over(double).__dict__  # which no kernel reads


@torch.inference_mode()
def test_rows_of_another_dtype_are_left_to_torch() -> None:
    router = taken_over(Router(torch.float32))
    with pytest.raises(RuntimeError):  # by torch
        router(torch.randn(1, 64).bfloat16())


@torch.inference_mode()
@pytest.mark.parametrize("model_type", ["qwen2_moe", "gpt_oss", "mixtral", "olmoe", "deepseek_v3", "glm4_moe"])
def test_transformers_routers_are_taken_over(model_type: str, tmp_path: Path) -> None:
    save_tiny(model_type, tmp_path)
    plan = make_plan(resolve(str(tmp_path)), 3, "bfloat16")
    model = DenseModel.load(plan.architecture, plan.layout, plan.checkpoint, plan.dtype)
    found = [module for name, module in model._model.named_modules() if name.endswith((".gate", ".router"))]
    assert found
    for router in found:
        assert isinstance(router.forward.__func__.__globals__["F"], routers.RouterLinear)
        assert (router.weight.dtype == torch.float32) == (model_type in ("deepseek_v3", "glm4_moe"))
