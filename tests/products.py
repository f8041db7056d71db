"""What holds for products of rows with a matrix, whatever the weight format."""

from __future__ import annotations

import torch
from torch import Tensor

from faasmoe.experts.formats.base import Matrix
from faasmoe.model.dense.linear.linear_group import Layers
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.dense.linear.team import Team


def operands(rows: int, outs: int, ins: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, a weight and a bias in bfloat16."""
    random = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(shape, generator=random) for shape in ((rows, ins), (outs, ins), (outs,)))
    return x.bfloat16(), weight.bfloat16(), bias.bfloat16()


def assert_rounded_once(
    y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, x_off: float = 0
) -> None:
    """`y` is within half a unit in the last place of the exact result, and what float32 sums may lose.

    Each number of x may be off by `x_off` times the largest in its row.
    """
    added = torch.zeros(len(weight)) if bias is None else bias
    exact = x.double() @ weight.double().T + added.double()
    terms = x.double().abs() @ weight.double().abs().T + added.double().abs()
    assert y.dtype == torch.bfloat16
    largest = x.double().abs().amax(1, keepdim=True) if len(x) else torch.zeros(0, 1)
    off = x_off * largest * weight.double().abs().sum(1)
    assert ((y.double() - exact).abs() <= exact.abs() * 2**-8 + terms * x.shape[1] * 2**-24 + off).all()


def assert_linear(
    matrix: Matrix,
    means: Tensor,
    x: Tensor,
    bias: Tensor | None = None,
    *,
    seen: Tensor | None = None,
    x_off: float = 0,
) -> None:
    """Products of rows `x` with `matrix` are those with `means`, rounded once (`assert_rounded_once`).

    A row and an output have the same bits in any company. `seen`: the rows as the kernel rounds them.
    """
    y = linear_rows(x, matrix, bias)
    assert_rounded_once(y, x if seen is None else seen, means, bias, x_off)
    for row, wanted in zip(x, y, strict=True):
        assert torch.equal(linear_rows(row[None], matrix, bias)[0], wanted)
    if len(means) > 1:
        assert torch.equal(linear_rows(x, matrix[1:], None if bias is None else bias[1:]), y[:, 1:])


def assert_a_team_has_the_bits_of_one_thread(matrix: Matrix, x: Tensor, bias: Tensor | None = None) -> None:
    assert torch.equal(Team(2).run(Layers((matrix, bias)), x)[0], linear_rows(x, matrix, bias))
