from __future__ import annotations

import pytest
import torch

from faasmoe.experts.formats.dense import FORMAT, linear_backend


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
        FORMAT.linear(torch.ones(1, 3), torch.ones(4, 2), None, transposed=False)
    assert onednn()
