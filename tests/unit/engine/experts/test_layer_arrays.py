from __future__ import annotations

import pytest
import torch
from torch import Tensor

from faasmoe.engine.experts.layer_arrays import ArraysByLayer


def given(dtype: torch.dtype, rows: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(rows, 64).to(dtype), torch.randint(9, (rows, 2)), torch.rand(rows, 2).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arrays_of_the_same_tensors_are_kept_and_have_their_numbers(dtype: torch.dtype) -> None:
    by_layer, (hidden, index, weight) = ArraysByLayer(), given(dtype)
    first = by_layer.of(4, hidden, index, weight)
    hidden.fill_(3), index.fill_(5), weight.fill_(0.5)
    again = by_layer.of(4, hidden, index, weight)
    assert again is first
    assert bytes(again.rows) == hidden.view(torch.uint8).numpy().tobytes()
    assert again.index.tolist() == index.tolist()
    assert torch.equal(torch.from_numpy(again.weight).view(dtype), weight)
    assert (again.total.shape, again.total.dtype) == (hidden.shape, dtype)
    assert by_layer.of(4, hidden.clone(), index, weight) is not first
    assert by_layer.of(5, hidden, index, weight) is not first


def test_what_has_to_be_copied_or_is_large_is_not_kept() -> None:
    by_layer = ArraysByLayer()
    hidden, index, weight = given(torch.float32)
    apart = torch.randn(3, 4)[:, ::2]
    for tensors in ((hidden, index, apart), (hidden, index, weight.double()), given(torch.float32, rows=2000)):
        arrays = by_layer.of(0, *tensors)
        assert torch.allclose(torch.from_numpy(arrays.weight), tensors[2].float())
        assert by_layer.of(0, *tensors) is not arrays
