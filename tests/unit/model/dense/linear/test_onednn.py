from __future__ import annotations

import pytest
import torch

from faasmoe.experts.kernels.calibration import ONEDNN, Measurement
from faasmoe.model.dense.linear import onednn


def test_it_is_timed_on_one_thread_for_many_rows_by_weights_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, calls = torch.get_num_threads(), []
    real = onednn.F.linear

    def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append((torch.get_num_threads(), x.dtype, weight.nbytes, len(x)))
        return real(x, weight)

    monkeypatch.setattr(onednn.F, "linear", linear)
    products = [("bfloat16", 1), ("bfloat16", 64), ("int8", 64)]
    given = [Measurement(format, rows, "cache", {"avx2": 1.0}) for format, rows in products]
    few, many, int8 = onednn.timed(given)
    assert (few, int8) == (given[0], given[2])
    assert many.milliseconds.keys() == {"avx2", ONEDNN}
    assert set(calls) == {(1, torch.bfloat16, 1 << 20, 64)}
    assert torch.get_num_threads() == threads
    assert given[1].milliseconds == {"avx2": 1.0}
