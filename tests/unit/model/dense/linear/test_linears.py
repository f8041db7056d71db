from __future__ import annotations

import pytest
import torch
from torch import nn

from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.model.dense.linear import backend
from faasmoe.model.dense.linear.linears import Crew, StepLinear


class Scaled(nn.Linear):
    """A layer that is no plain linear layer."""


def make_model() -> nn.Module:
    model = nn.ModuleDict({
        "in": nn.Linear(32, 48),
        "odd": nn.Linear(30, 8),
        "scaled": Scaled(32, 8),
        "norm": nn.LayerNorm(32),
    })  # fmt: skip
    return model.bfloat16().requires_grad_(False)


@pytest.mark.parametrize("rows", [3, 33])
@pytest.mark.parametrize("onednn_rows", [33, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_that_is_replaced_computes_the_same(
    monkeypatch: pytest.MonkeyPatch, rows: int, onednn_rows: int | None, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(backend, "_ONEDNN_ROWS", onednn_rows)
    torch.manual_seed(1)
    model, x = make_model().to(dtype), torch.randn(1, rows, 32).to(dtype)
    wanted = model["in"].double()(x.double())
    model["in"].to(dtype)
    names = dict(model.named_parameters())
    Crew().take_over(model)
    assert isinstance(model["in"], StepLinear)
    assert dict(model.named_parameters()).keys() == names.keys()
    got = model["in"](x)
    assert got.shape == (1, rows, 48)
    off = {"atol": 2e-2, "rtol": 2**-8} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(got.double(), wanted, **off)


def test_only_plain_layers_that_the_kernel_reads_are_replaced() -> None:
    model = make_model()
    Crew().take_over(model)
    kinds = {name: type(layer) for name, layer in model.named_children()}
    assert kinds == {"in": StepLinear, "odd": StepLinear, "scaled": Scaled, "norm": nn.LayerNorm}
    whole = nn.Sequential(nn.Linear(32, 16), nn.Linear(16, 8).double())
    Crew().take_over(whole)
    assert [type(layer) for layer in whole] == [StepLinear, nn.Linear]  # no kernel reads float64


@pytest.mark.parametrize("rows", [1, 5])
def test_a_layer_computes_with_the_weights_that_it_is_given_instead(rows: int) -> None:
    torch.manual_seed(1)
    model, x = make_model(), torch.randn(1, rows, 32).bfloat16()
    matrix, bias = Int8Matrix.nearest(torch.randn(48, 32).numpy()), model["in"].bias.double()
    model["in"].weight = nn.Parameter(torch.empty(0), requires_grad=False)
    Crew().take_over(model, {"in": matrix})
    wanted = x.double() @ torch.from_numpy(matrix.exact()).double().T + bias
    torch.testing.assert_close(model["in"](x).double(), wanted, atol=2e-2, rtol=2**-8)
    assert "in.weight" not in dict(model.named_parameters())
    assert isinstance(model["odd"].weight, nn.Parameter)


def test_layers_run_on_one_thread_while_others_need_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = (
        nn.ModuleDict({"wide": nn.Linear(64, 4096)}).bfloat16().requires_grad_(False),
        torch.randn(1, 64).bfloat16(),
    )
    crew = Crew()
    crew.start(2)
    crew.take_over(model)
    wanted = model["wide"](x)
    run, alone = crew.team.run, []
    monkeypatch.setattr(crew.team, "run", lambda *a, **k: alone.append(k["alone"]) or run(*a, **k))
    with crew.resting():
        assert torch.equal(model["wide"](x), wanted)
    assert torch.equal(model["wide"](x), wanted)
    assert alone == [True, False]


class Attention(nn.Module):
    """Three layers for the same rows, and one for others."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(64, outs) for outs in (64, 32, 64))
        self.last = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = (layer(x) for layer in self.layers)
        return self.last(a + c) + b.sum()


def test_layers_that_take_the_same_rows_run_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_ONEDNN_ROWS", None)
    model, crew = Attention().bfloat16().requires_grad_(False), Crew()
    crew.start(2)
    x = torch.randn(1, 3, 64).bfloat16()
    crew.take_over(model)
    wanted = model(x)
    with crew.learning():
        model(torch.randn(1, 1, 64).bfloat16())
    run, together = crew.team.run, []
    monkeypatch.setattr(crew.team, "run", lambda of, *a, **k: together.append(len(of.outs)) or run(of, *a, **k))
    for _ in range(2):
        assert torch.equal(model(x), wanted)
    assert together == [3, 1, 3, 1]
    other = torch.randn(1, 3, 64).bfloat16()
    assert torch.equal(model.layers[1](other), model.layers[1](other.clone()))  # out of order: computed for itself
    assert torch.equal(model(x), wanted)


def test_torch_has_its_threads_when_ours_have_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr(backend, "_ONEDNN_ROWS", None)
    try:
        crew = Crew()
        crew.start(3)
        crew.begin(1)
        assert torch.get_num_threads() == 3
        crew.take_over(make_model())
        for rows, threads in ((1, 1), (31, 1), (32, 3)):
            crew.begin(rows)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
