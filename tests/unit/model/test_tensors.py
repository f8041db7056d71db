from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from faasmoe.experts.mapping import TensorLocation
from faasmoe.model.tensors import DTYPES, as_array, as_tensor, map_tensor


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("offset", [0, 24, 25])
def test_a_tensor_of_any_dtype_is_mapped(tmp_path: Path, name: str, offset: int) -> None:
    wanted = torch.tensor([[1, 0, 2], [3, 4, 0]]).to(DTYPES[name])
    (tmp_path / "file").write_bytes(bytes(offset) + wanted.view(torch.uint8).numpy().tobytes())
    tensor = map_tensor(TensorLocation(tmp_path / "file", offset, name, (2, 3)))
    assert tensor.dtype == DTYPES[name]
    assert torch.equal(tensor.view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,) * 32])
def test_a_tensor_of_any_shape_is_mapped(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "file").write_bytes(bytes(2))
    assert map_tensor(TensorLocation(tmp_path / "file", 0, "BF16", shape)).shape == shape


def test_the_map_lives_as_long_as_the_tensor(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(np.arange(3, dtype=np.float32).tobytes())
    tensor = map_tensor(TensorLocation(tmp_path / "file", 0, "F32", (3,)))
    (tmp_path / "file").unlink()
    assert tensor.tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_a_tensor_and_its_array_are_the_same_memory(dtype: torch.dtype) -> None:
    tensor = torch.ones(2, 3, dtype=dtype)
    array = as_array(tensor)
    again = as_tensor(array)
    assert again.dtype == dtype
    assert again.data_ptr() == tensor.data_ptr() == array.ctypes.data
    array[0, 0] = 0
    assert tensor[0, 0] == again[0, 0] == 0
