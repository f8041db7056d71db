from __future__ import annotations

import numpy as np
import pytest
import torch

from faasmoe.experts.expert import ACTIVATIONS, GATE_KINDS, ExpertForm, Gate, expert_forward
from faasmoe.model.tensors import as_array, as_tensor
from tests.experts import TorchExpert, forward, gated

H, INNER = 6, 4
SILU = Gate("glu", "silu")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, GATE, UP, DOWN = drawn(3, H), drawn(INNER, H, seed=1), drawn(INNER, H, seed=2), drawn(H, INNER, seed=3)


def computed(x: torch.Tensor, expert: TorchExpert, form: ExpertForm) -> torch.Tensor:
    return as_tensor(expert_forward(as_array(x), expert.weights, form))


@pytest.mark.parametrize(
    ("expert", "form"),
    [
        (TorchExpert((GATE, UP), DOWN), ExpertForm(SILU)),
        (TorchExpert((torch.cat([GATE, UP]),), DOWN), ExpertForm(SILU)),
        (TorchExpert((torch.cat([GATE, UP]).T,), DOWN.T), ExpertForm(SILU, transposed=True)),
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
    gate, up = np.array([[9.0, -9.0]], np.float32), np.array([[8.0, -8.0]], np.float32)
    assert Gate("clamped_in", limit=2)(gate, up).tolist() == [[4.0, 18.0]]
    assert Gate("clamped_out", limit=2)(gate, up).tolist() == [[4.0, 18.0]]
    assert Gate("none", "relu")(gate, None).tolist() == [[9.0, 0.0]]
    oai = Gate("swiglu_oai", limit=7, alpha=1.702)(gate, up)
    assert oai[0, 0] == pytest.approx(8 * 7 / (1 + np.exp(-7 * 1.702)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", GATE_KINDS)
def test_a_gate_is_what_torch_computes(kind: str, activation: str) -> None:
    gate = Gate(kind, activation, limit=1.5, alpha=1.702)
    x, up = torch.linspace(-200, 200, 4001)[None], None if kind == "none" else 3 * drawn(1, 4001)
    got = gate(as_array(x), None if up is None else as_array(up))
    assert got.dtype == np.float32
    wanted = gated(gate, x.double(), None if up is None else up.double())
    torch.testing.assert_close(as_tensor(got).double(), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_weights_of_any_dtype_are_multiplied_exactly(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, transposed: bool, biased: bool
) -> None:
    monkeypatch.setattr("faasmoe.experts.blas._PIECE", 250)  # the last piece is smaller
    hidden, inner = 38, 30  # which fill no vector
    first = drawn(2 * inner, hidden, seed=1), drawn(2 * inner, seed=4)
    down = drawn(hidden, inner, seed=2), drawn(hidden, seed=5)
    matrices = [m.T.contiguous() if transposed else m for m in (first[0], down[0])]
    biases = ((first[1],), down[1]) if biased else ((), None)
    expert = TorchExpert((matrices[0],), matrices[1], *biases).map(lambda tensor: tensor.to(dtype))
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


def test_what_the_gate_gives_is_rounded_to_the_models_dtype() -> None:
    expert, form = TorchExpert((GATE, UP), DOWN), ExpertForm(SILU)
    gated = (torch.nn.functional.silu(X @ GATE.T) * (X @ UP.T)).bfloat16().float()
    got = as_tensor(expert_forward(as_array(X), expert.weights, form, "BF16"))
    assert torch.allclose(got, gated @ DOWN.T, atol=1e-6)
