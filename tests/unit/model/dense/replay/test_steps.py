from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from faasmoe.model.dense.replay import steps
from faasmoe.model.dense.replay.operation import Operation
from faasmoe.model.dense.replay.steps import runner, steps_of
from tests.instruction_sets import on_each

instruction_set = on_each(steps)
aten: Any = torch.ops.aten


def ran(function: Any, arguments: Sequence[Any], result: Tensor) -> bool:
    """Whether there is a step for it. It has written to `result` then."""
    operation = Operation(function=function, arguments=tuple(arguments), results=[result])
    if (steps := steps_of(operation)) is None:
        return False
    runner(steps)()
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
    assert not ran(aten.mul.Tensor, [x.bfloat16(), 0.1], result.bfloat16())  # is multiplied in float32
    assert not ran(aten.mul.Tensor, [x, True], result)
    assert not ran(aten.add.Tensor, [x.long(), x.long()], result.long())
    assert not ran(aten.add.Tensor, [x, random(2, 8, 4, dtype=torch.float32).mT], result)
    assert not ran(aten.add.Tensor, [x, random(4, 2, 8, dtype=torch.float32).transpose(0, 1)], result)
    assert not ran(aten.add.Tensor, [x, x], random(2, 8, 4, dtype=torch.float32).mT)
    assert not ran(aten.sub.Tensor, [x, x], result)
    named = Operation(function=aten.add.Tensor, arguments=(x, x), named={"alpha": 2}, results=[result])
    assert steps_of(named) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", [aten.add.Tensor, aten.mul.Tensor])
def test_numbers_of_python_are_those_of_torch(function: Any, dtype: torch.dtype) -> None:
    x = random(3, 37, dtype=dtype)
    for number in (1, 2.5, -0.125, *([0.1, 1e-3] if dtype == torch.float32 else [])):
        result = torch.empty_like(x)
        assert ran(function, [x, number], result)
        assert torch.equal(result, function(x, number))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_put_side_by_side(dtype: torch.dtype) -> None:
    parts = [random(1, 5, width, dtype=dtype) for width in (3, 40, 1)]
    parts.append(random(1, 5, 90, dtype=dtype)[:, :, 7:20])
    result = torch.empty(1, 5, 57, dtype=dtype)
    assert ran(aten.cat.default, [parts, -1], result)
    assert torch.equal(result, torch.cat(parts, -1))
    rows = [random(n, 8, dtype=dtype) for n in (2, 1, 4)]
    result = torch.empty(7, 8, dtype=dtype)
    assert ran(aten.cat.default, [rows], result)
    assert torch.equal(result, torch.cat(rows))
    assert not ran(aten.cat.default, [[rows[0], rows[0].double()]], torch.empty(4, 8, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_table_are_gathered(dtype: torch.dtype) -> None:
    table, places = random(9, 30, dtype=dtype), torch.tensor([[8, 0, 3, 3]])
    result = torch.empty(1, 4, 30, dtype=dtype)
    assert ran(aten.embedding.default, [table, places, 2], result)
    assert torch.equal(result, table[places])
    for indices in ([torch.tensor([1, -9])], [None, torch.tensor([1, 0])]):
        x = table[:2][None] if indices[0] is None else table
        result = aten.index.Tensor(x, indices)
        wanted = result.clone()
        assert ran(aten.index.Tensor, [x, indices], result.zero_())
        assert torch.equal(result, wanted)


def test_rows_that_a_table_lacks_are_an_error() -> None:
    table, result = torch.ones(3, 4), torch.empty(1, 4)
    for function, place in ((aten.embedding.default, 3), (aten.embedding.default, -1), (aten.index.Tensor, -4)):
        places: Any = torch.tensor([place])
        with pytest.raises(IndexError):
            ran(function, [table, [places] if function is aten.index.Tensor else places], result)


def test_other_ways_to_index_are_left_to_torch() -> None:
    x, places, result = torch.ones(2, 3, 4), torch.tensor([0]), torch.empty(2, 1, 4)
    assert not ran(aten.index.Tensor, [x, [None, places]], result)
    assert not ran(aten.index.Tensor, [x, [places, places]], torch.empty(1, 4))
    assert not ran(aten.index.Tensor, [x.mT, [places]], torch.empty(1, 4, 3))
    assert not ran(aten.embedding.default, [x[0], places.int()], torch.empty(1, 4))
