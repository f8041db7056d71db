from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from faasmoe.errors import CheckpointError
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.model.dense.linear.linears import FormatLinear
from faasmoe.model.dense.soundness import blame, check_small


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_number_that_is_not_finite_is_found_in_any_dtype(dtype: torch.dtype) -> None:
    model = nn.ModuleDict({"a": nn.Module()})
    model["a"].register_buffer("weight", torch.ones(4).to(dtype))
    model["a"].register_buffer("index", torch.ones(4, dtype=torch.int64))
    blame(model)
    check_small(model)
    model["a"].weight = torch.tensor([1, float("nan")]).to(dtype)
    for check in (blame, check_small):
        with pytest.raises(CheckpointError, match=r"the tensor a\.weight holds a non-finite weight"):
            check(model)


def test_a_quantised_weight_is_looked_at_as_well() -> None:
    matrix = Int8Matrix(np.ones((2, 16), np.int8), np.array([1, float("inf")], np.float32))
    model = nn.ModuleDict({"proj": FormatLinear(nn.Linear(16, 2), matrix)})
    with pytest.raises(CheckpointError, match=r"the tensor proj\.weight holds"):
        blame(model)
