from __future__ import annotations

import sys
from contextlib import suppress

import pytest
import torch
import transformers.modeling_utils
from torch import nn

from faasmoe.model import lean


def test_what_is_imported_already_stays_as_it_is() -> None:
    there = transformers.modeling_utils
    lean.import_transformers()
    assert sys.modules["transformers.modeling_utils"] is there


def test_a_model_without_values_has_its_shapes_and_what_it_computes() -> None:
    with torch.device("meta"), lean.without_values():
        linear, norm, positions = nn.Linear(3, 5), nn.LayerNorm(2), torch.arange(4)
        assert torch.empty(3, device="cpu").device.type == "cpu"
    assert linear.weight.is_meta
    assert linear.weight.shape == (5, 3)
    assert norm.weight.shape == (2,)
    assert (positions * torch.tensor([1, 2, 3, 4])).tolist() == [0, 2, 6, 12]


@pytest.mark.parametrize("failing", [False, True])
def test_afterwards_torch_is_as_it_was(failing: bool) -> None:
    empty, initial = torch.empty, nn.init.kaiming_uniform_
    with suppress(ValueError), lean.without_values():
        assert torch.empty(1).is_meta
        if failing:
            raise ValueError
    assert torch.empty is empty
    assert nn.init.kaiming_uniform_ is initial
    assert torch.empty(1).device.type == "cpu"
