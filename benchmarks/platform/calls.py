"""Warm calls: empty ones, experts, and prefills."""

from __future__ import annotations

import json
import statistics
import struct
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks import bare
from benchmarks.figures import Figures
from benchmarks.platform.blocks import HIDDEN, make_blocks, median_of, soon, token
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call, FunctionSpec
from faasmoe.platforms.buffer import Buffer
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol.frame import MAX_INLINE


def measure_calls(platform: LocalPlatform, folder: Path, calls: int) -> Figures:
    artifact = folder / "nothing"
    artifact.touch()
    platform.deploy([FunctionSpec(f"empty-{i}", "benchmarks.functions:empty", artifact) for i in range(4)])
    four = [Call(f"empty-{i}", [b""]) for i in range(4)]
    rounds: dict[str, list[float]] = {
        "warm_call_us": [],
        "fanout4_us": [],
        "bare_call_us": [],
        "bare_fanout4_us": [],
    }
    for _ in range(5):  # in turns, since machines are noisy
        rounds["warm_call_us"].append(median_of(lambda: platform.invoke_many(four[:1], soon()), calls // 5, 1e6))
        rounds["bare_call_us"].append(bare.round_trip_us(1, calls // 5))
        rounds["fanout4_us"].append(median_of(lambda: platform.invoke_many(four, soon()), calls // 5, 1e6))
        rounds["bare_fanout4_us"].append(bare.round_trip_us(4, calls // 5))
    return {name: statistics.median(values) for name, values in rounds.items()}


def measure_experts(platform: LocalPlatform, folder: Path, blocks: Sequence[Block]) -> Figures:
    """Four experts on one token, and two processes that only read the same bytes."""
    parts = [[(str(p.file), p.offset, p.nbytes) for p in block.artifact.weights[0]] for block in blocks[:4]]
    for i in range(2):
        (folder / f"read-{i}").write_text(json.dumps(parts[2 * i] + parts[2 * i + 1]))
    platform.deploy(
        [FunctionSpec(f"read-{i}", "benchmarks.functions:reader", folder / f"read-{i}") for i in range(2)]
    )
    calls = [Call(block.name, token()) for block in blocks[:4]]
    readers = [Call(f"read-{i}", [b""]) for i in range(2)]
    expert_ms, floor_ms = [], []
    for _ in range(20):
        expert_ms.append(median_of(lambda: platform.invoke_many(calls, soon()), 50, 1e3))
        for _ in range(20):
            took = [struct.unpack("<Q", reply)[0] for reply in platform.invoke_many(readers, soon())]
            floor_ms.append(max(took) / 1e6)
    expert, floor = statistics.median(expert_ms), statistics.median(floor_ms)
    return {"fanout4_expert_ms": expert, "memory_floor_ms": floor, "fanout4_expert_ratio": expert / floor}


def measure_prefill(platform: LocalPlatform, folder: Path) -> Figures:
    """Bytes copied for a layer of 512 tokens; least possible: its rows are written once, and each sum once."""
    experts, tokens, top_k = 60, 512, 4
    blocks = [
        Block(f"prefill-{i}", block.artifact)
        for i, block in enumerate(make_blocks(folder, experts, 64, block_size=10))
    ]
    platform.deploy(write_functions(blocks, folder / "prefill"))
    dispatch = Dispatch(platform, blocks)
    hidden = torch.randn(tokens, HIDDEN).bfloat16()
    index = torch.stack([torch.randperm(experts)[:top_k] for _ in range(tokens)])
    weight = torch.rand(tokens, top_k)
    dispatch(0, hidden, index, weight)
    with patch.object(platform, "invoke_many", wraps=platform.invoke_many) as invoke_many:
        dispatch(0, hidden, index, weight)
    copied = sum(_copied_bytes(*seen.args) for seen in invoke_many.call_args_list)
    sums = sum(4 * HIDDEN * len(torch.unique((index // 10 == i).nonzero()[:, 0])) for i in range(len(blocks)))
    milliseconds = median_of(lambda: dispatch(0, hidden, index, weight), 20, 1e3)
    return {
        "prefill_bytes_copied_ratio": (copied + sums) / (hidden.nbytes + sums),
        "prefill_layer_ms": milliseconds,
        "prefill_bytes": copied + sums,
    }


def _copied_bytes(calls: Sequence[Call], _: float, shared: Buffer | None, *__: object) -> int:
    """Bytes that a batch copies on its way to functions: small payloads into a socket and out of it, others once."""
    lengths = [sum(map(len, call.payload)) for call in calls]
    return len(shared or b"") + sum(2 * length if length <= MAX_INLINE else length for length in lengths)
