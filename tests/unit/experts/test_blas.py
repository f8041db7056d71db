from __future__ import annotations

import numpy as np
import pytest

from faasmoe.experts import blas
from faasmoe.experts.blas import products

RANDOM = np.random.default_rng(0)
X, WEIGHT = RANDOM.standard_normal((5, 30), np.float32), RANDOM.standard_normal((14, 30), np.float32)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("piece", [1, 70, 1 << 17])
def test_pieces_make_the_whole(monkeypatch: pytest.MonkeyPatch, transposed: bool, piece: int) -> None:
    monkeypatch.setattr(blas, "_PIECE", piece)
    weight, asked = WEIGHT.T.copy() if transposed else WEIGHT, []

    def widened(rows: slice) -> np.ndarray:
        asked.append(weight[rows].size)
        return weight[rows]

    y = products(X, weight.shape, widened, transposed)
    np.testing.assert_allclose(y, X.astype(np.float64) @ WEIGHT.T, rtol=1e-5, atol=1e-5)
    assert sum(asked) == weight.size
    assert max(asked) <= max(piece, weight.shape[1])


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="mismatch"):
        products(X[:, 1:], WEIGHT.shape, WEIGHT.__getitem__)


def test_no_rows_make_none() -> None:
    assert products(X[:0], WEIGHT.shape, WEIGHT.__getitem__).shape == (0, 14)
