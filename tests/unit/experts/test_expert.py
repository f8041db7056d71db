from __future__ import annotations

import numpy as np
import pytest
import torch

from faasmoe.experts import fused
from faasmoe.experts.expert import ACTIVATIONS, GATE_KINDS, ExpertForm, Gate
from faasmoe.experts.fused import FusedExperts
from faasmoe.experts.payload import Request
from faasmoe.model.tensors import as_array
from tests.experts import TorchExpert, forward, gated
from tests.instruction_sets import on_each

instruction_set = on_each(fused)

H, INNER = 6, 4
SILU = Gate("glu", "silu")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, GATE, UP, DOWN = drawn(3, H), drawn(INNER, H, seed=1), drawn(INNER, H, seed=2), drawn(H, INNER, seed=3)


def computed(x: torch.Tensor, expert: TorchExpert, form: ExpertForm) -> torch.Tensor:
    """In float32."""
    index, sums = np.arange(len(x), dtype=np.int32), np.zeros(x.shape, np.float32)
    request = Request(
        layer=0, rows=as_array(x), row=index, expert=np.zeros_like(index), weight=np.ones(len(x), np.float32)
    )
    FusedExperts([expert.weights], form, "F32").forward(request, sums)
    return torch.from_numpy(sums)


def through(gate: Gate, values: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """What a gate gives for `values` and `up` `[n]`, as the kernel computes it between identities."""
    first = torch.eye(2)[:1] if gate.kind == "none" else torch.eye(2)
    return computed(
        torch.stack([values, up], 1), TorchExpert((first,), torch.tensor([[1.0], [0.0]])), ExpertForm(gate)
    )[:, 0]


@pytest.mark.parametrize(
    ("expert", "form"),
    [
        (TorchExpert((GATE, UP), DOWN), ExpertForm(SILU)),
        (TorchExpert((torch.cat([GATE, UP]),), DOWN), ExpertForm(SILU)),
        (
            TorchExpert((torch.cat([GATE, UP]).T.contiguous(),), DOWN.T.contiguous()),
            ExpertForm(SILU, transposed=True),
        ),
        (TorchExpert((torch.stack([GATE, UP], 1).flatten(0, 1),), DOWN), ExpertForm(SILU, interleaved=True)),
    ],
    ids=["apart", "joined", "transposed", "interleaved"],
)
def test_layouts_of_the_same_expert_agree(expert: TorchExpert, form: ExpertForm) -> None:
    wanted = (torch.nn.functional.silu(X @ GATE.T) * (X @ UP.T)) @ DOWN.T
    assert torch.allclose(computed(X, expert, form), wanted, atol=1e-6)


def test_biases_are_added_before_gate_and_after_down() -> None:
    first, last = torch.arange(2.0 * INNER), torch.arange(float(H))
    expert = TorchExpert((torch.cat([GATE, UP]),), DOWN, (first,), last)
    gate, up = X @ GATE.T + first[:INNER], X @ UP.T + first[INNER:]
    wanted = (torch.nn.functional.silu(gate) * up) @ DOWN.T + last
    assert torch.allclose(computed(X, expert, ExpertForm(SILU)), wanted, atol=1e-5)


def test_gates_clamp_where_they_say() -> None:
    gate, up = torch.tensor([9.0, -9.0]), torch.tensor([8.0, -8.0])
    assert through(Gate("clamped_in", limit=2), gate, up).tolist() == [4.0, 18.0]
    assert through(Gate("clamped_out", limit=2), gate, up).tolist() == [4.0, 18.0]
    assert through(Gate("none", "relu"), gate, up).tolist() == [9.0, 0.0]
    oai = through(Gate("swiglu_oai", limit=7, alpha=1.702), gate, up)
    assert float(oai[0]) == pytest.approx(8 * 7 / (1 + np.exp(-7 * 1.702)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", GATE_KINDS)
def test_a_gate_is_what_torch_computes(kind: str, activation: str) -> None:
    gate = Gate(kind, activation, limit=1.5, alpha=1.702)
    x, up = torch.linspace(-200, 200, 4001), 3 * drawn(4001)
    wanted = gated(gate, x.double(), None if kind == "none" else up.double())
    torch.testing.assert_close(through(gate, x, up).double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_weights_of_any_dtype_are_multiplied_exactly(dtype: torch.dtype, transposed: bool, biased: bool) -> None:
    hidden, inner = 38, 30  # which fill no vector
    first = drawn(2 * inner, hidden, seed=1), drawn(2 * inner, seed=4)
    down = drawn(hidden, inner, seed=2), drawn(hidden, seed=5)
    matrices = [m.T.contiguous() if transposed else m for m in (first[0], down[0])]
    biases = ((first[1],), down[1]) if biased else ((), None)
    expert = TorchExpert(tuple(each.to(dtype) for each in matrices[:1]), matrices[1].to(dtype), *biases)
    x, form = drawn(7, hidden), ExpertForm(SILU, transposed=transposed, interleaved=True)
    wanted = forward(x.double(), expert.map(torch.Tensor.double), form)
    got = computed(x, expert, form)
    torch.testing.assert_close(got.double(), wanted, atol=2e-5 * float(wanted.abs().max()), rtol=1e-5)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_has_the_same_bits_in_any_company(transposed: bool) -> None:
    hidden, inner, count = 2048, 96, 67
    first, down = drawn(2 * inner, hidden, seed=1).bfloat16(), drawn(hidden, inner, seed=2).bfloat16()
    if transposed:
        first, down = first.T.contiguous(), down.T.contiguous()
    expert, form = TorchExpert((first,), down), ExpertForm(SILU, transposed=transposed)
    x = drawn(count, hidden)
    together = computed(x, expert, form)
    for row in range(count):
        assert torch.equal(computed(x[row : row + 1], expert, form)[0], together[row])
