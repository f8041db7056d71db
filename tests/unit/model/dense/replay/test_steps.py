from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from faasmoe.model.dense.replay import steps
from faasmoe.model.dense.replay.operation import Operation
from faasmoe.model.dense.replay.steps import runner, step_of
from tests.instruction_sets import on_each

instruction_set = on_each(steps)
aten: Any = torch.ops.aten


def ran(function: Any, arguments: Sequence[Any], result: Tensor) -> bool:
    """Whether there is a step for it. It has written to `result` then."""
    operation = Operation(function=function, arguments=tuple(arguments), results=[result])
    if (step := step_of(operation)) is None:
        return False
    runner([step])()
    return True


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return (3 * torch.randn(shape)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 7, 32, 70])
@pytest.mark.parametrize("function", [aten.add.Tensor, aten.mul.Tensor])
def test_sums_and_products_have_torchs_bits(function: Any, width: int, dtype: torch.dtype) -> None:
    torch.manual_seed(width)
    x = random(1, 5, width, dtype=dtype)
    wide = random(5, 3 * width, dtype=dtype)[:, width : 2 * width]  # rows that are apart
    for other in (random(1, 5, width, dtype=dtype), random(5, 1, dtype=dtype), random(width, dtype=dtype), wide):
        for both in ((x, other), (other, x)):
            result = torch.empty_like(x)
            assert ran(function, both, result)
            assert torch.equal(result, function(*both))


@pytest.mark.parametrize("to", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_are_converted_as_by_torch(dtype: torch.dtype, to: torch.dtype) -> None:
    torch.manual_seed(0)
    for x in (
        random(3, 70, dtype=dtype),
        random(3, 90, dtype=dtype)[:, 8:45],
        random(4, dtype=dtype),
        random(3, 1, dtype=dtype),
    ):
        result = torch.empty(x.shape, dtype=to)
        assert ran(aten._to_copy.default, [x], result)
        assert torch.equal(result, x.to(to))


def test_what_steps_do_not_do_is_left_to_torch() -> None:
    x = random(2, 4, 8, dtype=torch.float32)
    result = torch.empty_like(x)
    assert not ran(aten.add.Tensor, [x, x.bfloat16()], result)  # is added in float32
    assert not ran(aten.mul.Tensor, [x, 2.0], result)
    assert not ran(aten.add.Tensor, [x.long(), x.long()], result.long())
    assert not ran(aten.add.Tensor, [x, random(2, 8, 4, dtype=torch.float32).mT], result)
    assert not ran(aten.add.Tensor, [x, random(4, 2, 8, dtype=torch.float32).transpose(0, 1)], result)
    assert not ran(aten.add.Tensor, [x, x], random(2, 8, 4, dtype=torch.float32).mT)
    assert not ran(aten.sub.Tensor, [x, x], result)
    named = Operation(function=aten.add.Tensor, arguments=(x, x), named={"alpha": 2}, results=[result])
    assert step_of(named) is None
