from __future__ import annotations

from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts import fused
from faasmoe.experts.expert import ACTIVATIONS, ExpertForm, ExpertWeights, Gate
from faasmoe.experts.formats.int4 import Int4Matrix
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.payload import Request
from faasmoe.model.tensors import as_array, as_tensor
from tests.experts import TorchExpert, assert_stands_for, forward
from tests.instruction_sets import on_each

instruction_set = on_each(fused)

HIDDEN, INNER = 48, 32
GATES = [Gate("none", name) for name in ACTIVATIONS] + [
    Gate("glu", "silu"),
    Gate("clamped_in", "silu", limit=0.5),
    Gate("clamped_out", "gelu_tanh", limit=0.5),
    Gate("swiglu_oai", limit=0.7, alpha=1.702),
]


def matrix(*shape: int) -> torch.Tensor:
    return (torch.randn(shape) / 4).bfloat16()


LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]  # transposed, interleaved
# Of rows, and of weights.
DTYPES = [
    (torch.bfloat16, torch.bfloat16),
    (torch.float32, torch.float32),
    (torch.float32, torch.float16),
    (torch.float32, torch.bfloat16),
]


def make_expert(gate: Gate, merged: bool, biased: bool, transposed: bool = False) -> TorchExpert:
    firsts = [INNER] if gate.kind == "none" else [2 * INNER] if merged else [INNER, INNER]
    return TorchExpert(
        tuple(matrix(HIDDEN, out) if transposed else matrix(out, HIDDEN) for out in firsts),
        matrix(INNER, HIDDEN) if transposed else matrix(HIDDEN, INNER),
        tuple(matrix(out) for out in firsts) if biased else (),
        matrix(HIDDEN) if biased else None,
    )


def spread(expert: TorchExpert, rows: torch.dtype, weights: torch.dtype) -> TorchExpert:
    """The expert with weights and biases for a model in the dtype of `rows`, which use all bits of their dtypes."""

    def filled(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return (tensor.double() * (1 + torch.rand(tensor.shape) / 128)).to(dtype)

    return TorchExpert(
        tuple(filled(each, weights) for each in expert.first),
        filled(expert.down, weights),
        tuple(filled(each, rows) for each in expert.first_bias),
        None if expert.down_bias is None else filled(expert.down_bias, rows),
    )


def make_request(
    rows: int, slots: int, experts: int, picked: bool = False, dtype: torch.dtype = torch.bfloat16
) -> Request:
    source = torch.randn(2 * rows, HIDDEN).to(dtype)
    return Request(
        layer=0,
        rows=as_array(source if picked else source[:rows]),
        row=torch.randint(rows, (slots,), dtype=torch.int32).numpy(),
        expert=torch.randint(experts, (slots,), dtype=torch.int32).numpy(),
        weight=torch.rand(slots).numpy(),
        picked=torch.randperm(2 * rows)[:rows].int().numpy() if picked else None,
    )


def between(x: torch.Tensor, expert: TorchExpert, form: ExpertForm) -> torch.Tensor:
    """What the gate gives for rows `x`."""
    return forward(x, replace(expert, down=torch.eye(INNER, dtype=torch.float64), down_bias=None), form)


def expected(
    experts: list[TorchExpert], form: ExpertForm, request: Request, rounded: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums in float64, and how far off they may be.

    What the gate gives is `rounded` to bfloat16. Float32 and float64 round to different sides now and then: `off` is
    what all of the rounding comes to.
    """
    rows = as_tensor(request.rows if request.picked is None else request.rows[request.picked]).double()
    sums, off = torch.zeros(2, request.tokens, HIDDEN, dtype=torch.float64)
    for row, expert, weight in zip(request.row, request.expert, request.weight.tolist(), strict=True):
        its = experts[expert].map(torch.Tensor.double)
        gated = between(rows[row][None], its, form)[0]
        down = its.down.T if form.transposed else its.down
        out = down @ (gated.bfloat16().double() if rounded else gated)
        sums[row] += weight * (out if its.down_bias is None else out + its.down_bias)
        off[row] += weight * (down.abs() @ gated.abs()) * (2**-8 if rounded else 2**-20)
    return sums, off


def assert_close(got: torch.Tensor, wanted: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert ((got - wanted[0]).abs() <= wanted[1] + 1e-4).all()


def computed(experts: list[ExpertWeights], form: ExpertForm, request: Request) -> torch.Tensor:
    sums = np.zeros((request.tokens, HIDDEN), np.float32)
    FusedExperts(experts, form, request.dtype).forward(request, sums)
    return torch.from_numpy(sums).double()


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: f"{gate.kind}-{gate.activation}")
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("transposed", "interleaved"), LAYOUTS)
def test_every_gate_is_the_one_of_the_plain_kernels(
    gate: Gate, biased: bool, transposed: bool, interleaved: bool
) -> None:
    torch.manual_seed(1)
    for merged in (False, True):
        experts = [make_expert(gate, merged, biased, transposed) for _ in range(2)]
        form, request = ExpertForm(gate, transposed, interleaved), make_request(3, 4, 2)
        sums = computed([expert.weights for expert in experts], form, request)
        wanted, off = expected(experts, form, request)
        assert_close(sums, (wanted, off))
        errors = (sums - wanted).abs() - 1e-5 * wanted.abs()
        assert errors.median() <= 1e-5  # where nothing was rounded to the other side, as near as float32 comes


@pytest.mark.parametrize("dtypes", DTYPES[1:], ids=lambda dtypes: str(dtypes[1]))
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("transposed", "interleaved"), LAYOUTS)
def test_a_model_in_float32_rounds_nothing(
    dtypes: tuple[torch.dtype, torch.dtype], biased: bool, transposed: bool, interleaved: bool
) -> None:
    torch.manual_seed(5)
    for gate in GATES:
        experts = [spread(make_expert(gate, True, biased, transposed), *dtypes) for _ in range(2)]
        form, request = ExpertForm(gate, transposed, interleaved), make_request(11, 20, 2, dtype=dtypes[0])
        sums = computed([expert.weights for expert in experts], form, request)
        wanted, _ = expected(experts, form, request, rounded=False)
        torch.testing.assert_close(sums, wanted, atol=4e-6 * float(wanted.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda dtypes: f"{dtypes[0]}-{dtypes[1]}")
@pytest.mark.parametrize("transposed", [False, True])
def test_matrices_may_have_any_size(
    monkeypatch: pytest.MonkeyPatch, dtypes: tuple[torch.dtype, torch.dtype], transposed: bool
) -> None:
    monkeypatch.setitem(globals(), "HIDDEN", 39)
    monkeypatch.setitem(globals(), "INNER", 7)
    torch.manual_seed(6)
    form = ExpertForm(Gate("glu", "silu"), transposed)
    experts, request = (
        [spread(make_expert(form.gate, True, True, transposed), *dtypes)],
        make_request(9, 9, 1, dtype=dtypes[0]),
    )
    rounded = dtypes[0] == torch.bfloat16
    assert_close(computed([experts[0].weights], form, request), expected(experts, form, request, rounded))


def test_rows_in_float32_may_be_rounded_after_the_gate() -> None:
    torch.manual_seed(7)
    form, request = ExpertForm(Gate("glu", "silu")), make_request(9, 9, 1, dtype=torch.float32)
    expert, sums = spread(make_expert(form.gate, True, True), *DTYPES[1]), np.zeros((9, HIDDEN), np.float32)
    FusedExperts([expert.weights], form, "F32", rounded=True).forward(request, sums)
    wanted, off = expected([expert], form, request)
    assert_close(torch.from_numpy(sums).double(), (wanted, off))
    exact, _ = expected([expert], form, request, rounded=False)
    assert (wanted - exact).abs().max() > 1e-3  # rounding shows


@given(
    rows=st.integers(1, 40),
    slots=st.integers(0, 90),
    picked=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    dtypes=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None)
def test_slots_find_their_rows_experts_and_weights(
    rows: int,
    slots: int,
    picked: bool,
    layout: tuple[bool, bool],
    dtypes: tuple[torch.dtype, torch.dtype],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    form = ExpertForm(Gate("glu", "silu"), *layout)
    experts = [spread(make_expert(form.gate, True, False, form.transposed), *dtypes) for _ in range(3)]
    request = make_request(rows, slots, 3, picked, dtypes[0])
    sums = computed([expert.weights for expert in experts], form, request)
    assert_close(sums, expected(experts, form, request, rounded=dtypes[0] == torch.bfloat16))


@pytest.mark.parametrize("merged", [False, True])
def test_experts_in_int8_are_those_that_they_stand_for(merged: bool) -> None:
    torch.manual_seed(3)
    form, request = ExpertForm(Gate("glu", "silu")), make_request(9, 30, 2)
    plain = [make_expert(form.gate, merged, True) for _ in range(2)]
    packed, meant = zip(*map(in_int8, plain), strict=True)
    sums = computed(list(packed), form, request)
    assert_close(sums, expected(list(meant), form, request))
    assert not FusedExperts.supports([packed[0], plain[0].weights], form, "BF16")


def in_int8(expert: TorchExpert) -> tuple[ExpertWeights, TorchExpert]:
    """The expert with its matrices in int8, and the one that this stands for."""
    weights = expert.weights
    first, down = tuple(map(Int8Matrix.nearest, weights.first)), Int8Matrix.nearest(weights.down)
    matrices = [torch.from_numpy(matrix.exact()) for matrix in (*first, down)]
    meant = TorchExpert(tuple(matrices[:-1]), matrices[-1], expert.first_bias, expert.down_bias)
    return ExpertWeights(first, down, weights.first_bias, weights.down_bias), meant


@pytest.mark.parametrize("merged", [False, True])
def test_experts_in_int4_are_nearly_those_that_they_stand_for(merged: bool) -> None:
    """Rows of both layers are rounded to eight bits. A row has the same bits whatever rows come with it."""
    torch.manual_seed(4)
    hidden, inner, form = 96, 64, ExpertForm(Gate("glu", "silu"))
    gate, up, down = matrix(inner, hidden), matrix(inner, hidden), matrix(hidden, inner)
    first = tuple(map(in_int4, [torch.cat([gate, up])] if merged else [gate, up]))
    weights = ExpertWeights(first, in_int4(down))
    *means, down_means = (torch.from_numpy(each.exact()) for each in (*first, weights.down))
    assert_stands_for(weights, TorchExpert(tuple(means), down_means), form, most=0.02)


def in_int4(weight: torch.Tensor) -> Int4Matrix:
    return Int4Matrix.nearest(as_array(weight))


@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda dtypes: f"{dtypes[0]}-{dtypes[1]}")
@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_has_the_same_bits_in_any_company(dtypes: tuple[torch.dtype, torch.dtype], transposed: bool) -> None:
    torch.manual_seed(2)
    form = ExpertForm(Gate("glu", "silu"), transposed)
    expert = spread(make_expert(form.gate, False, False, transposed), *dtypes)
    index, zeros = np.arange(37, dtype=np.int32), np.zeros(37, np.int32)
    rows, weight = as_array(torch.randn(37, HIDDEN).to(dtypes[0])), torch.rand(37).numpy()
    request = Request(layer=0, rows=rows, row=index, expert=zeros, weight=weight)
    experts = FusedExperts([expert.weights], form, request.dtype)
    together = np.zeros((37, HIDDEN), np.float32)
    experts.forward(request, together)
    for i in range(37):
        alone = np.zeros((1, HIDDEN), np.float32)
        experts.forward(
            Request(layer=0, rows=rows[i : i + 1], row=zeros[:1], expert=zeros[:1], weight=weight[i : i + 1]),
            alone,
        )
        assert np.array_equal(alone[0], together[i])


@pytest.mark.parametrize(("hidden", "inner"), [(1040, 16), (16, 1040)])
def test_matrices_may_be_wider_than_a_group_of_sums(
    monkeypatch: pytest.MonkeyPatch, hidden: int, inner: int
) -> None:
    monkeypatch.setitem(globals(), "HIDDEN", hidden)
    monkeypatch.setitem(globals(), "INNER", inner)
    torch.manual_seed(4)
    form = ExpertForm(Gate("glu", "silu"), transposed=True, interleaved=True)
    experts, request = [make_expert(form.gate, True, True, transposed=True)], make_request(11, 11, 1)
    assert_close(computed([experts[0].weights], form, request), expected(experts, form, request))


def test_memory_for_many_rows_is_not_kept() -> None:
    hidden, inner = 512, 16_384
    weights = tuple(np.zeros((inner, hidden), np.uint16) for _ in range(2))
    expert = ExpertWeights(weights, np.zeros((hidden, inner), np.uint16))
    kernel = FusedExperts([expert], ExpertForm(GATES[-1]), "BF16")
    resident = []
    for rows in (1, 96):
        index, sums = np.arange(rows, dtype=np.int32), np.zeros((rows, hidden), np.float32)
        x = np.zeros((rows, hidden), np.uint16)
        kernel.forward(
            Request(layer=0, rows=x, row=index, expert=np.zeros_like(index), weight=np.ones(rows, np.float32)),
            sums,
        )
        resident.append(psutil.Process().memory_info().rss)
    assert resident[1] - resident[0] < 4 << 20  # the first layer's results alone are 12 MiB


def test_what_it_cannot_read_is_refused() -> None:
    gate = Gate("glu", "silu")
    good = make_expert(gate, True, False)
    wide = good.map(torch.Tensor.float)
    assert FusedExperts.supports([good.weights], ExpertForm(gate), "BF16")
    assert FusedExperts.supports([good.weights], ExpertForm(gate), "F32")
    assert not FusedExperts.supports([in_int8(good)[0]], ExpertForm(gate), "F32")
    assert not FusedExperts.supports([in_int8(good)[0]], ExpertForm(gate, transposed=True), "BF16")
    assert not FusedExperts.supports([good.weights, wide.weights], ExpertForm(gate), "F32")
    assert not FusedExperts.supports([wide.map(torch.Tensor.double).weights], ExpertForm(gate), "F32")
    biased = replace(wide, down_bias=torch.ones(HIDDEN).half())
    assert not FusedExperts.supports([biased.weights], ExpertForm(gate), "F32")
    assert not FusedExperts.supports([wide.weights], ExpertForm(gate), "BF16")
    with pytest.raises(ValueError, match="cannot run"):
        FusedExperts([wide.weights], ExpertForm(gate), "BF16")
