from __future__ import annotations

import numpy as np
import pytest
import torch

from faasmoe.experts.arrays import address, in_memory
from faasmoe.model.tensors import as_array


@pytest.mark.parametrize(("name", "dtype"), [("F32", torch.float32), ("BF16", torch.bfloat16), ("I8", torch.int8)])
def test_a_tensor_is_read_as_its_array_is(name: str, dtype: torch.dtype) -> None:
    tensor = torch.ones(4, 6, dtype=dtype)
    for part in (tensor, tensor[1:3], tensor[::2], tensor[:, :3], tensor.T):
        array = as_array(part)
        assert in_memory(part, name) == in_memory(array, name) == part.is_contiguous()
        assert address(part) == address(array)
    other = "F32" if name != "F32" else "BF16"
    assert not in_memory(tensor, other)
    assert not in_memory(as_array(tensor), other)


def test_what_is_on_a_device_cannot_be_read() -> None:
    assert not in_memory(torch.ones(2, device="meta"), "F32")


def test_a_part_begins_where_it_lies() -> None:
    array = np.arange(6, dtype=np.float32)
    assert address(array[2:]) == address(array) + 8
    assert address(array[:0]) == address(array)
    frozen = np.frombuffer(array.tobytes(), np.float32)
    assert address(frozen[2:]) == address(frozen) + 8
