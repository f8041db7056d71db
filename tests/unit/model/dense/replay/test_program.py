from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from faasmoe.model.dense.replay.program import NotRecorded, Program, ProgramMemory
from faasmoe.model.dense.replay.recorder import OperationRecorder

WEIGHT = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def program_of(function: Callable[[Tensor], Tensor], x: Tensor) -> Program:
    with OperationRecorder() as recorder:
        result = function(x)
    assert not recorder.refused
    return Program(recorder.operations, [x], result, ProgramMemory())


def routed(x: Tensor) -> Tensor:
    """Much of what routers do."""
    scores = torch.nn.functional.linear(x, WEIGHT).float().softmax(-1)
    top, index = scores.topk(3)
    top /= top.sum(-1, keepdim=True)
    kept = torch.zeros_like(scores).scatter_(1, index, top)
    return torch.cat([kept.masked_fill(kept == 0, -1.0), scores.sigmoid()], -1)[:, 1:]


def gated(x: Tensor) -> Tensor:
    for _ in range(20):
        gate, up = (x @ WEIGHT.to(x.dtype)).chunk(2, -1)
        x = x + torch.cat([torch.nn.functional.silu(gate) * up, (gate - up).pow(2)], -1)
        x = x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6).to(x.dtype)
    return x


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", [routed, gated])
def test_operations_write_to_memory_that_is_used_again(
    function: Callable[[Tensor], Tensor], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight_dtype = dtype if function is gated else torch.float32
    program = program_of(function, torch.randn(5, 8).to(weight_dtype))
    assert program._arena.nbytes < 4096
    for _ in range(3):
        x = torch.randn(5, 8).to(weight_dtype)
        assert torch.equal(program.run([x]), function(x))


@torch.inference_mode()
def test_what_changes_more_than_its_step_is_refused() -> None:
    count = torch.zeros(1)
    with pytest.raises(NotRecorded, match="add_"):
        program_of(lambda x: x + count.add_(1), torch.ones(3))
    with pytest.raises(NotRecorded, match="add_"):
        program_of(lambda x: x.add_(1), torch.ones(3))


@torch.inference_mode()
def test_other_numbers_are_noticed() -> None:
    numbers = iter([1.0, 2.0, 1.0])
    program = program_of(lambda x: x * next(numbers), torch.ones(3))
    x = torch.randn(3)
    assert not program.agrees([x], [], x * 2)
    assert program.agrees([x], [], x * 1)
    assert not program.agrees([x], [([x], x)], x * 1)  # a boundary that the program does not have
