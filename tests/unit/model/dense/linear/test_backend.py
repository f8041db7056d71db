from __future__ import annotations

import pytest
import torch

from faasmoe.experts.formats import REGISTERED, Registered
from faasmoe.experts.formats.int8 import Int8Matrix
from faasmoe.model.dense.linear import backend, matvec
from faasmoe.model.dense.linear.backend import linear, linear_backend
from faasmoe.model.tensors import as_array
from tests.products import assert_rounded_once, operands
from tests.unit.experts.formats import made_up


def onednn() -> bool:
    return bool(torch._C._get_mkldnn_enabled())


def test_one_row_goes_past_onednn() -> None:
    before = onednn()
    with linear_backend(1):
        assert not onednn()
    assert onednn()
    with linear_backend(2):
        assert onednn() == before
    with pytest.raises(RuntimeError, match="shapes"):
        linear(torch.ones(1, 3), torch.ones(4, 2), None)
    assert onednn()


@pytest.mark.parametrize(
    ("onednn_rows", "rows", "ours"),
    [(None, 1, 1), (None, 70, 1), (64, 1, 1), (64, 63, 1), (64, 64, 0), (64, 70, 0)],
)
@pytest.mark.parametrize("int8", [False, True])
def test_onednn_takes_as_many_rows_as_it_was_chosen_for_unless_the_weight_is_quantised(
    monkeypatch: pytest.MonkeyPatch, onednn_rows: int | None, rows: int, ours: int, int8: bool
) -> None:
    calls: list[torch.Tensor] = []
    kernel = matvec.linear_rows

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        calls.append(x)
        return kernel(x, weight, bias)

    monkeypatch.setattr(backend, "_ONEDNN_ROWS", onednn_rows)
    monkeypatch.setattr(matvec, "linear_rows", counted)
    x, weight, bias = operands(rows, 5, 32, seed=0)
    quantised = Int8Matrix.nearest(as_array(weight))
    exact = torch.from_numpy(quantised.exact()) if int8 else weight
    x_off = 0.5 / 0x7F7F if int8 else 0  # kernels multiply by whole numbers, up to 0x7f7f
    assert_rounded_once(linear(x, quantised if int8 else weight, bias), x, exact, bias, x_off)
    assert len(calls) == (1 if int8 else ours)  # torch reads no quantised weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("biased", [False, True])
def test_a_format_that_no_kernel_reads_is_multiplied_all_the_same(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, biased: bool
) -> None:
    monkeypatch.setitem(REGISTERED, made_up.FORMAT.name, Registered(made_up.__name__))
    x, weight, bias = (each.to(dtype) for each in operands(6, 10, 32, seed=0))
    matrix = made_up.FORMAT.convert(as_array(weight))
    y = linear(x, matrix, bias if biased else None)
    assert y.dtype == dtype
    wanted = x.double() @ torch.from_numpy(matrix.exact()).double().T + (bias.double() if biased else 0)
    torch.testing.assert_close(y.double(), wanted, atol=1e-5, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5)
