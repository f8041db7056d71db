"""Blocks of experts, and calls of them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.expert import ExpertForm, Gate
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Request, encode_request
from faasmoe.model.tensors import as_array
from faasmoe.model.weights.blocks import Block

HIDDEN, INNER = 2048, 1408  # Qwen1.5-MoE's experts
MIB = 1 << 20


def soon() -> float:
    return time.monotonic() + 60


def make_blocks(folder: Path, count: int, inner: int = INNER, block_size: int = 1) -> list[Block]:
    """One layer of bfloat16 experts in a file of random numbers."""
    file, size = folder / f"weights-{count}-{inner}", inner * HIDDEN * 2
    with file.open("wb") as stream:
        for _ in range(3 * count):
            stream.write(as_array((torch.randn(inner * HIDDEN) / 50).bfloat16()).data)
        os.fsync(stream.fileno())  # what is not on the disk cannot be dropped from the page cache

    def at(index: int, *shape: int) -> TensorLocation:
        return TensorLocation(file, index * size, "BF16", shape)

    experts = [
        ExpertLocations((at(3 * i, inner, HIDDEN), at(3 * i + 1, inner, HIDDEN)), at(3 * i + 2, HIDDEN, inner))
        for i in range(count)
    ]
    form = ExpertForm(Gate("glu", "silu"))
    return [
        Block(
            f"expert-{i}",
            Artifact(0, tuple(range(i, i + block_size)), "BF16", form, tuple(experts[i:][:block_size])),
        )
        for i in range(0, count, block_size)
    ]


def weight_file(block: Block) -> Path:
    """Where all weights of `make_blocks` are."""
    return block.artifact.weights[0].down.parts[0].file


def token() -> list[bytes | bytearray | memoryview]:
    index, rows = np.zeros(1, np.int32), as_array(torch.randn(1, HIDDEN).bfloat16())
    return encode_request(Request(layer=0, rows=rows, row=index, expert=index, weight=np.ones(1, np.float32)))


def median_of(act: Callable[[], object], times: int, scale: float) -> float:
    """Median duration, in seconds times `scale`; the first tenth is not counted."""
    durations = []
    for _ in range(times + times // 10):
        start = time.perf_counter()
        act()
        durations.append((time.perf_counter() - start) * scale)
    return statistics.median(durations[times // 10 :])


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
