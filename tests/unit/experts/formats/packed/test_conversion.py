from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from faasmoe.experts.dtypes import narrowed, widened
from faasmoe.experts.formats.grouped_int4 import GroupedInt4Matrix
from faasmoe.experts.formats.packed.conversion import from_awq, from_gptq, from_pack_quantized

random = np.random.default_rng(0)
SHAPES = [(16, 256, 32), (8, 256, 64), (24, 384, 128), (8, 384, 384), (8, 96, 96), (8, 512, 256)]  # out, in, group
each_shape = pytest.mark.parametrize(("outs", "ins", "group"), SHAPES)


def packed(codes: NDArray[Any], order: tuple[int, ...] = tuple(range(8))) -> NDArray[np.int32]:
    """Codes `[n, 8 m]` in int32 `[n, m]`: code number i of a word is that of column `order[i]`, of eight."""
    words = np.zeros((len(codes), codes.shape[1] // 8), np.uint32)
    for column in range(8):
        words |= codes[:, column::8].astype(np.uint32) << np.uint32(4 * order.index(column))
    return words.view(np.int32)


def operands(outs: int, ins: int, group: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes `[out, in]`, zeros and float16 scales `[out, groups]`."""
    codes, zeros = random.integers(0, 16, (outs, ins)), random.integers(0, 16, (outs, ins // group))
    return codes, zeros, random.standard_normal((outs, ins // group)).astype(np.float16)


def assert_is(matrix: GroupedInt4Matrix, codes: NDArray[Any], zeros: Any, scales: NDArray[Any]) -> None:
    """`matrix` is exactly what the codes, zeros and scales of larger or smaller groups stand for."""
    group = codes.shape[1] // scales.shape[1]
    differences = codes - np.repeat(zeros, group, axis=1)
    wanted = differences.astype(np.float32) * np.repeat(widened(scales), group, axis=1)
    assert np.array_equal(matrix.exact(), wanted)
    assert matrix.columns == max(size for size in (32, 64, 128) if group % size == 0)


@each_shape
@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_pack_quantized(outs: int, ins: int, group: int, dtype: str) -> None:
    """Signed codes and zeros are stored with 8 added, zeros along the rows."""
    codes, zeros, halves = operands(outs, ins, group)
    scales = {"F16": halves, "F32": halves.astype(np.float32) / 3, "BF16": narrowed(widened(halves))}[dtype]
    assert_is(from_pack_quantized(packed(codes), scales, (outs, ins)), codes, np.full_like(zeros, 8), scales)
    zero_point = packed(zeros.T).T
    matrix = from_pack_quantized(packed(codes), scales, (outs, ins), zero_point, np.arange(ins) // group)
    assert_is(matrix, codes, zeros, scales)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("outs", "ins", "group"), [(16, 256, 32), (11, 256, 64), (24, 384, 128), (16, 512, 256), (8, 96, None)]
)
def test_pack_quantized_is_what_compressed_tensors_makes_and_reads(
    outs: int, ins: int, group: int | None, symmetric: bool
) -> None:
    """Without a group a row has one scale. Rows that are no multiple of eight have zeros that are padded."""
    compressors = pytest.importorskip("compressed_tensors.compressors", reason="compressed-tensors is missing")
    quantization = importlib.import_module("compressed_tensors.quantization")
    arguments = quantization.QuantizationArgs(num_bits=4, symmetric=symmetric, group_size=group or -1)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=arguments)
    groups = ins // (group or ins)
    plain = {
        "weight": torch.randn(outs, ins),
        "weight_scale": torch.rand(outs, groups) / 4 + 0.05,
        "weight_zero_point": torch.randint(*((0, 1) if symmetric else (-8, 8)), (outs, groups), dtype=torch.int8),
    }
    published = compressors.PackedQuantizationCompressor.compress(plain, scheme)
    read = compressors.PackedQuantizationCompressor.decompress(published, scheme)["weight"]
    arrays = {name: tensor.numpy() for name, tensor in published.items()}
    matrix = from_pack_quantized(
        arrays["weight_packed"],
        arrays["weight_scale"],
        tuple(arrays["weight_shape"].tolist()),
        arrays.get("weight_zero_point"),
    )
    assert ("weight_zero_point" in arrays) != symmetric
    assert np.array_equal(matrix.exact(), read.numpy())


def test_pack_quantized_rows_that_are_no_multiple_of_eight_are_padded_with_zeros_of_no_meaning() -> None:
    codes, zeros, scales = operands(16, 64, 32)
    matrix = from_pack_quantized(packed(codes)[:11], scales[:11], (11, 64), packed(zeros.T).T)
    assert_is(matrix, codes[:11], zeros[:11], scales[:11])


@each_shape
@pytest.mark.parametrize("version", [1, 2])
def test_gptq(outs: int, ins: int, group: int, version: int) -> None:
    """Version 1 stores zeros of 1 to 16, less one."""
    codes, stored, scales = operands(outs, ins, group)
    zeros = stored + 1 if version == 1 else stored
    for g_idx in (None, np.arange(ins, dtype=np.int32) // group):
        matrix = from_gptq(packed(codes).T, packed(stored.T), scales.T, g_idx, version)
        assert_is(matrix, codes, zeros, scales)


@each_shape
def test_awq(outs: int, ins: int, group: int) -> None:
    codes, zeros, scales = operands(outs, ins, group)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    assert_is(from_awq(packed(codes.T, order), packed(zeros.T, order), scales.T), codes, zeros, scales)


def test_columns_in_another_order_are_refused() -> None:
    codes, zeros, scales = operands(8, 64, 32)
    for g_idx in (np.arange(64)[::-1] // 32, np.arange(63) // 32, np.zeros(64)):
        with pytest.raises(ValueError, match=r"g_idx.*desc_act"):
            from_gptq(packed(codes).T, packed(zeros.T), scales.T, g_idx)
        with pytest.raises(ValueError, match=r"g_idx.*desc_act"):
            from_pack_quantized(packed(codes), scales, (8, 64), None, g_idx)


def test_arrays_that_make_up_no_weight_are_refused() -> None:
    codes, zeros, scales = operands(16, 64, 32)
    weight, its_zeros = packed(codes), packed(zeros.T)
    with pytest.raises(ValueError, match=r"weight_packed is int64 .* must be int32 \[16, 8\]"):
        from_pack_quantized(weight.astype(np.int64), scales, (16, 64))
    with pytest.raises(ValueError, match="weight_packed"):
        from_pack_quantized(weight, scales, (16, 128))
    with pytest.raises(ValueError, match="weight_zero_point"):
        from_pack_quantized(weight, scales, (16, 64), its_zeros[:1])
    with pytest.raises(ValueError, match="scales are float64"):
        from_pack_quantized(weight, scales.astype(np.float64), (16, 64))
    with pytest.raises(ValueError, match="scales are float16"):
        from_pack_quantized(weight, scales[:4], (16, 64))
    with pytest.raises(ValueError, match="4 groups in 64 columns"):
        from_pack_quantized(weight, np.repeat(scales, 2, axis=1), (16, 64))
    with pytest.raises(ValueError, match="0 groups"):
        from_pack_quantized(weight, scales[:, :0], (16, 64))
    with pytest.raises(ValueError, match="qweight"):
        from_gptq(weight.T[:, :8], its_zeros, scales.T)
    with pytest.raises(ValueError, match="qzeros"):
        from_awq(packed(codes.T), its_zeros[:1], scales.T)
    with pytest.raises(ValueError, match="version 3"):
        from_gptq(weight.T, its_zeros, scales.T, version=3)
