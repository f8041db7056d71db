from __future__ import annotations

import sys
from contextlib import suppress

import pytest
import torch
import transformers.modeling_utils
from torch import nn

from faasmoe.model.adapter import light_import


def test_what_is_imported_already_stays_as_it_is() -> None:
    there = transformers.modeling_utils
    light_import.import_transformers()
    assert sys.modules["transformers.modeling_utils"] is there


def test_a_model_without_values_has_its_shapes_and_what_it_computes() -> None:
    with torch.device("meta"), light_import.without_values():
        linear, norm, positions = nn.Linear(3, 5), nn.LayerNorm(2), torch.arange(4)
        assert torch.empty(3, device="cpu").device.type == "cpu"
    assert linear.weight.is_meta
    assert linear.weight.shape == (5, 3)
    assert norm.weight.shape == (2,)
    assert (positions * torch.tensor([1, 2, 3, 4])).tolist() == [0, 2, 6, 12]


def test_initial_values_are_not_computed() -> None:
    weight = torch.ones(4, 4)
    with light_import.without_values():
        nn.init.normal_(weight)
        nn.init.kaiming_uniform_(weight)
    assert torch.equal(weight, torch.ones(4, 4))


LARGE = (512, 512)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(*LARGE),
        lambda: torch.zeros(LARGE, dtype=torch.float32),
        lambda: torch.ones(size=LARGE),
        lambda: torch.full(LARGE, 0.5),
        lambda: torch.full(size=LARGE, fill_value=0.5),
        lambda: torch.rand(torch.Size(LARGE)),
        lambda: torch.randn(*LARGE, requires_grad=True),
    ],
)
def test_large_values_of_no_interest_take_no_memory(make) -> None:
    with torch.device("meta"), light_import.without_values():
        made = make()
    assert made.is_meta
    assert (made.shape, made.dtype) == (LARGE, torch.float32)


def test_small_values_are_there_and_dtypes_are_kept() -> None:
    with light_import.without_values():
        assert torch.zeros(3).tolist() == [0, 0, 0]
        assert torch.full((2,), 7).tolist() == [7, 7]
        assert torch.full(LARGE, True).dtype == torch.bool
        assert torch.ones(LARGE, dtype=torch.int64).dtype == torch.int64
        assert torch.randn(LARGE, requires_grad=True).requires_grad
        assert torch.zeros(LARGE, device="cpu").sum() == 0
        assert torch.zeros(()).shape == ()


@pytest.mark.parametrize("failing", [False, True])
def test_afterwards_torch_is_as_it_was(failing: bool) -> None:
    empty, zeros, initial = torch.empty, torch.zeros, nn.init.kaiming_uniform_
    with suppress(ValueError), light_import.without_values():
        assert torch.empty(1).is_meta
        if failing:
            raise ValueError
    assert torch.empty is empty
    assert torch.zeros is zeros
    assert nn.init.kaiming_uniform_ is initial
    assert torch.empty(1).device.type == "cpu"
