from __future__ import annotations

import pytest
import torch

from faasmoe.experts.kernels.expert import ExpertForm, ExpertWeights, Gate, expert_forward, own_kernel

H, INNER = 6, 4
X = torch.randn(3, H, generator=torch.Generator().manual_seed(0))
GATE, UP, DOWN = (
    torch.randn(s, generator=torch.Generator().manual_seed(i))
    for i, s in enumerate([(INNER, H), (INNER, H), (H, INNER)])
)
SILU = Gate("glu", "silu")


def wanted() -> torch.Tensor:
    return (torch.nn.functional.silu(X @ GATE.T) * (X @ UP.T)) @ DOWN.T


@pytest.mark.parametrize(
    ("weights", "form"),
    [
        (ExpertWeights((GATE, UP), DOWN), ExpertForm(SILU)),
        (ExpertWeights((torch.cat([GATE, UP]),), DOWN), ExpertForm(SILU)),
        (ExpertWeights((torch.cat([GATE, UP]).T,), DOWN.T), ExpertForm(SILU, transposed=True)),
        (
            ExpertWeights((torch.stack([GATE, UP], 1).flatten(0, 1),), DOWN),
            ExpertForm(SILU, interleaved=True),
        ),
    ],
    ids=["apart", "joined", "transposed", "interleaved"],
)
def test_layouts_of_the_same_expert_agree(weights: ExpertWeights, form: ExpertForm) -> None:
    assert torch.allclose(expert_forward(X, weights, form), wanted(), atol=1e-6)


def test_biases_are_added_before_gate_and_after_down() -> None:
    first, last = torch.arange(2.0 * INNER), torch.arange(float(H))
    weights = ExpertWeights((torch.cat([GATE, UP]),), DOWN, (first,), last)
    gate, up = X @ GATE.T + first[:INNER], X @ UP.T + first[INNER:]
    assert torch.allclose(
        expert_forward(X, weights, ExpertForm(SILU)),
        (torch.nn.functional.silu(gate) * up) @ DOWN.T + last,
        atol=1e-5,
    )


def test_gates_clamp_where_they_say() -> None:
    gate, up = torch.tensor([[9.0, -9.0]]), torch.tensor([[8.0, -8.0]])
    assert Gate("clamped_in", limit=2)(gate, up).tolist() == [[4.0, 18.0]]
    assert Gate("clamped_out", limit=2)(gate, up).tolist() == [[4.0, 18.0]]
    assert Gate("none", "relu")(gate, None).tolist() == [[9.0, 0.0]]
    oai = Gate("swiglu_oai", limit=7, alpha=1.702)(gate, up)
    assert oai[0, 0] == pytest.approx(8 * 7 / (1 + torch.exp(torch.tensor(-7 * 1.702)).item()))


def test_few_rows_take_our_own_kernel() -> None:
    assert own_kernel(1)
    assert own_kernel(1000) == (not torch.cpu._is_amx_tile_supported())
