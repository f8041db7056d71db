from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.engine.output import largest as module
from faasmoe.engine.output.largest import finite_rows, largest
from tests.instruction_sets import on_each

instruction_set = on_each(module)


@given(
    rows=st.integers(0, 3), width=st.integers(1, 9000), values=st.integers(1, 50), seed=st.integers(0, 2**32 - 1)
)
def test_it_is_torchs_own(instruction_set: str, rows: int, width: int, values: int, seed: int) -> None:
    """Few different values, so that the largest is there several times."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-values, values, (rows, width), generator=generator).float()
    logits[torch.rand(rows, width, generator=generator) < 0.3] = -torch.inf
    places, tops = largest(logits)
    assert tops == [float(row.max()) for row in logits]
    assert places == [int((row == row.max()).nonzero()[0]) for row in logits]


@pytest.mark.parametrize("place", [0, 5, 63, 64, 4095, 4096, 8999])
def test_what_is_no_number_is_the_largest(instruction_set: str, place: int) -> None:
    logits = torch.randn(2, 9000, generator=torch.Generator().manual_seed(0))
    logits[0, [place, 8999]] = torch.nan
    logits[1, place] = torch.inf
    places, tops = largest(logits)
    assert places == [place, place] == logits.argmax(-1).tolist()
    assert tops[0] != tops[0]
    assert tops[1] == torch.inf


def test_a_row_may_hold_nothing_but_minus_infinity(instruction_set: str) -> None:
    assert largest(torch.full((1, 5000), -torch.inf)) == ([0], [-torch.inf])


def test_rows_may_lie_apart(instruction_set: str) -> None:
    logits = torch.arange(12.0).view(3, 4).T
    assert largest(logits) == ([2, 2, 2, 2], [8.0, 9.0, 10.0, 11.0])


@pytest.mark.parametrize("logits", [torch.zeros(4), torch.zeros(2, 0), torch.zeros(2, 3).double()])
def test_what_is_no_row_of_logits_is_refused(logits: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="no largest number of"):
        largest(logits)


def test_a_token_can_be_picked_if_the_largest_logit_is_finite() -> None:
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[1.0, -inf], [1.0, inf], [nan, 1.0], [1.0, nan], [-inf, -inf]])
    assert finite_rows(logits) == [True, False, False, False, False]
