from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from faasmoe.experts import fused
from faasmoe.experts.expert import ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats import REGISTERED, Registered
from faasmoe.experts.payload import Request
from faasmoe.experts.widened_experts import WidenedExperts
from faasmoe.model.tensors import as_array, as_tensor
from tests.experts import TorchExpert, forward
from tests.instruction_sets import on_each
from tests.unit.experts.formats import made_up

instruction_set = on_each(fused)

HIDDEN, INNER = 38, 30  # which fill no vector
FORM = ExpertForm(Gate("glu", "silu"))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_expert(seed: int) -> TorchExpert:
    gate, up, down = drawn(INNER, HIDDEN, seed=seed), drawn(INNER, HIDDEN, seed=seed + 1), drawn(HIDDEN, INNER)
    return TorchExpert((gate, up), down, (drawn(INNER, seed=3), drawn(INNER, seed=4)), drawn(HIDDEN, seed=5))


def make_request(dtype: torch.dtype, picked: bool = False) -> Request:
    row, expert = np.array([0, 1, 2, 0, 4], np.int32), np.array([2, 0, 2, 0, 0], np.int32)
    rows = as_array(drawn(7, HIDDEN, seed=6).to(dtype))
    picks = np.array([6, 2, 0, 1, 3], np.int32) if picked else None
    return Request(
        layer=0,
        rows=rows if picked else rows[:5],
        row=row,
        expert=expert,
        weight=as_array(drawn(5, seed=7)),
        picked=picks,
    )


def expected(experts: list[TorchExpert], request: Request, rounded: bool = False) -> torch.Tensor:
    rows = as_tensor(request.rows if request.picked is None else request.rows[request.picked]).double()
    sums = torch.zeros(request.tokens, HIDDEN, dtype=torch.float64)
    for row, expert, weight in zip(request.row, request.expert, request.weight.tolist(), strict=True):
        its = experts[expert].map(torch.Tensor.double)
        if rounded:
            one = replace(its, down=torch.eye(INNER, dtype=torch.float64), down_bias=None)
            between = forward(rows[row][None], one, FORM).bfloat16().double()
            sums[row] += weight * torch.nn.functional.linear(between, its.down, its.down_bias)[0]
        else:
            sums[row] += weight * forward(rows[row][None], its, FORM)[0]
    return sums


def computed(experts: list[ExpertWeights], request: Request, dtype: str = "F32") -> torch.Tensor:
    sums = np.zeros((request.tokens, HIDDEN), np.float32)
    WidenedExperts(experts, FORM, dtype).forward(request, sums)
    return torch.from_numpy(sums).double()


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(got, wanted, atol=4e-6 * float(wanted.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("rows", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("picked", [False, True])
def test_matrices_of_several_dtypes_and_rows_of_another(rows: torch.dtype, picked: bool) -> None:
    experts = [make_expert(0), make_expert(10).map(torch.Tensor.half), make_expert(20).map(torch.Tensor.bfloat16)]
    experts[0] = replace(experts[0], down=experts[0].down.half())
    request = make_request(rows, picked)
    assert_close(computed([expert.weights for expert in experts], request), expected(experts, request))


def test_what_the_gate_gives_is_rounded_to_the_dtype_of_the_model() -> None:
    experts, request = [make_expert(seed) for seed in (0, 10, 20)], make_request(torch.float32)
    wanted = expected(experts, request, rounded=True)
    got = computed([expert.weights for expert in experts], request, "BF16")
    assert (got - wanted).abs().max() < 1e-3 * wanted.abs().max()  # some are rounded to the other side
    assert (got - wanted).abs().median() < 1e-5


def test_a_format_that_no_kernel_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    experts, meant = [], []
    for seed in (0, 10, 20):
        plain = make_expert(seed)
        first, down = (
            [made_up.FORMAT.convert(as_array(each)) for each in plain.first],
            made_up.FORMAT.convert(as_array(plain.down)),
        )
        experts.append(replace(plain.weights, first=tuple(first), down=down))
        gate, up = (torch.from_numpy(each.exact()) for each in first)
        meant.append(replace(plain, first=(gate, up), down=torch.from_numpy(down.exact())))
    request = make_request(torch.float32)
    assert_close(computed(experts, request), expected(meant, request))
