from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from faasmoe.model.dense.replay.operation import Kernel, Row, visible
from faasmoe.model.dense.replay.recorder import OperationRecorder


class Doubled(Kernel):
    """A kernel that torch sees nothing of but the memory."""

    def __call__(self, x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        y.numpy()[:] = 2 * x.numpy()
        return y

    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        raise NotImplementedError


def recorded(function: Callable[[Tensor], object], x: Tensor) -> OperationRecorder:
    with torch.inference_mode(), OperationRecorder() as recorder:
        function(x)
    return recorder


def test_operations_are_noted_with_their_tensors() -> None:
    x = torch.ones(2, 3)
    recorder = recorded(lambda x: torch.softmax(x.t() + 1, -1), x)
    assert not recorder.refused
    names = [str(operation.function) for operation in recorder.operations]
    assert names == ["aten.t.default", "aten.add.Tensor", "aten._softmax.default"]
    transposed, added, _ = recorder.operations
    assert transposed.taken()[0] is x
    assert added.taken()[0] is transposed.results[0]


def test_a_kernel_is_one_operation() -> None:
    kernel = Doubled()
    recorder = recorded(lambda x: visible(kernel, x + 1), torch.ones(3))
    assert not recorder.refused
    assert [operation.function for operation in recorder.operations] == [torch.ops.aten.add.Tensor, kernel]
    assert torch.equal(recorder.operations[1].results[0], torch.full((3,), 4.0))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1 if x.sum() > 2 else x,
        lambda x: x * x[0].item(),
        lambda x: x * x.tolist()[0],
        lambda x: x * float(x.numpy()[0]),
        lambda x: x[x > 0],
        lambda x: torch.where(x > 0),
        lambda x: torch.nn.functional.one_hot(x.long()),
        lambda x: x.nonzero(),
        lambda x: torch.nn.functional.dropout(x, 0.5, training=True),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_depends_on_numbers_is_refused(function: Callable[[Tensor], object]) -> None:
    assert recorded(function, torch.ones(3)).refused


def test_rows_that_are_chosen_by_numbers_are_as_many_as_before() -> None:
    recorder = recorded(lambda x: x[torch.tensor([2, 0])], torch.ones(3))
    assert not recorder.refused
