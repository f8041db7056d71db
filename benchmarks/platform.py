"""What the embedded platform costs: calls, cold starts, memory. Prints a table with the limits beside the figures."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import torch
from rich.console import Console

from benchmarks import bare
from benchmarks.figures import Figures, report
from faasmoe.engine.experts.dispatch import Dispatch, write_functions
from faasmoe.evaluation.meters.processes import proportional_set_size
from faasmoe.evaluation.meters.residency import resident_bytes
from faasmoe.experts import PRELOAD
from faasmoe.experts.artifact import Artifact, ExpertLocations
from faasmoe.experts.kernels.expert import ExpertForm, Gate
from faasmoe.experts.mapping import TensorLocation
from faasmoe.experts.payload import Request, encode_request
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call, FunctionSpec
from faasmoe.platforms.local.daemon.pool import INSTANCE_BYTES
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start

HIDDEN, INNER = 2048, 1408  # Qwen1.5-MoE's experts
MIB = 1 << 20
LIMITS = {
    "warm_call_us": 80,
    "fanout4_us": 150,
    "fanout4_expert_ratio": 1.3,
    "cold_start_ms": 8,
    "cold_start_disk_ratio": 1.4,
    "instance_private_mb": 3,
    "deploy_1440_s": 2,
    "idle_cpu_percent": 1,
    "zero_pool_mb": 80,
    "budget_overshoot_percent": 5,
    "prefill_bytes_copied_ratio": 2,
}


def soon() -> float:
    return time.monotonic() + 60


def make_blocks(folder: Path, count: int, inner: int = INNER, block_size: int = 1) -> list[Block]:
    """One layer of bfloat16 experts in a file of random numbers."""
    file, size = folder / f"weights-{count}-{inner}", inner * HIDDEN * 2
    with file.open("wb") as stream:
        for _ in range(3 * count):
            stream.write((torch.randn(inner * HIDDEN) / 50).bfloat16().view(torch.int16).numpy().tobytes())
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


def token() -> list[bytes | bytearray | memoryview]:
    index = torch.zeros(1, dtype=torch.int32)
    return encode_request(Request(0, torch.randn(1, HIDDEN).bfloat16(), index, index, torch.ones(1)))


def median_of(act: Callable[[], object], times: int, scale: float) -> float:
    """Median duration, in seconds times `scale`; the first tenth is not counted."""
    durations = []
    for _ in range(times + times // 10):
        start = time.perf_counter()
        act()
        durations.append((time.perf_counter() - start) * scale)
    return statistics.median(durations[times // 10 :])


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


def measure_private(platform: LocalPlatform, blocks: Sequence[Block]) -> Figures:
    weights = str(blocks[0].artifact.weights[0].down.file)
    functions = {status.name: status for status in platform.status().functions}
    sizes = [private_bytes(int(each.id), weights) for b in blocks[:4] for each in functions[b.name].instances]
    return {"instance_private_mb": statistics.median(sizes) / 1e6}


def private_bytes(pid: int, weights: str) -> int:
    """Memory of a process that nobody else shares, without what it maps of a file. Source: proc(5), smaps."""
    total, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            counts = not line.endswith(weights)
        elif counts and fields[0] in ("Private_Dirty:", "Private_Clean:"):
            total += int(fields[1]) * 1024
    return total


def to_zero(platform: LocalPlatform, name: str) -> None:
    platform.stop([name])
    while any(status.name == name and status.instances for status in platform.status().functions):
        time.sleep(0.005)
    time.sleep(0.05)  # a spare child is forked in the meantime, as it is between two cold starts of real life


def measure_cold(platform: LocalPlatform, blocks: Sequence[Block], starts: int) -> Figures:
    call = [Call(blocks[0].name, token())]
    file, size = (
        blocks[0].artifact.weights[0].down.file,
        sum(part.nbytes for part in blocks[0].artifact.weights[0]),
    )
    warm, disk, dd = [], [], []
    platform.stop([status.name for status in platform.status().functions])  # what they map cannot be dropped
    for _ in range(starts):
        to_zero(platform, blocks[0].name)
        warm.append(timed(lambda: platform.invoke_many(call, soon())))
        to_zero(platform, blocks[0].name)
        drop(file)
        disk.append(timed(lambda: platform.invoke_many(call, soon())))
        to_zero(platform, blocks[0].name)
        drop(file)
        command = ["dd", f"if={file}", "of=/dev/null", "bs=1M", f"count={-(-size // MIB)}", "status=none"]
        dd.append(timed(partial(subprocess.run, command, check=True)))
    return {
        "cold_start_ms": statistics.median(warm) * 1e3,
        "cold_start_disk_ms": statistics.median(disk) * 1e3,
        "dd_ms": statistics.median(dd) * 1e3,
        "cold_start_disk_ratio": statistics.median(disk) / statistics.median(dd),
    }


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def drop(file: Path) -> None:
    """All of it: of a range the kernel keeps the large folios at its ends. No process may map it."""
    with file.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    kept = resident_bytes([(str(file), 0, file.stat().st_size)])
    if kept:
        raise RuntimeError(f"{file}: {kept} bytes stayed in the page cache, so nothing would be read from disk")


def measure_deployment(platform: LocalPlatform, folder: Path) -> Figures:
    one = make_blocks(folder, 1, inner=64)[0].artifact
    blocks = [Block(f"layer-{i}", one) for i in range(1440)]
    seconds = timed(lambda: platform.deploy(write_functions(blocks, folder / "many")))
    daemon = psutil.Process(platform.processes()[0])
    before = sum(daemon.cpu_times()[:2])
    time.sleep(10)
    return {"deploy_1440_s": seconds, "idle_cpu_percent": (sum(daemon.cpu_times()[:2]) - before) * 10}


def pool_bytes(platform: LocalPlatform) -> int:
    return sum(map(proportional_set_size, platform.processes()))


def measure_zero(folder: Path, blocks: Sequence[Block]) -> Figures:
    """All of the pool's memory once no function runs: while the zygote waits for calls, and after it has gone too."""
    with start("local", PRELOAD, keep_alive=0.5, zygote_keep_alive=8) as platform:
        platform.deploy(write_functions(blocks, folder / "zero"))
        platform.invoke_many([Call(block.name, token()) for block in blocks[:4]], soon())
        while any(status.instances for status in platform.status().functions):
            time.sleep(0.1)
        with_zygote = pool_bytes(platform)
        while platform.processes():
            time.sleep(0.1)
        alone = pool_bytes(platform)
        again = timed(lambda: platform.invoke_many([Call(blocks[0].name, token())], soon()))
    return {"zero_pool_mb": alone / 1e6, "zero_pool_with_zygote_mb": with_zygote / 1e6, "from_zero_s": again}


@contextmanager
def sampled(act: Callable[[], float], hertz: float) -> Iterator[list[float]]:
    values: list[float] = []
    done = threading.Event()

    def run() -> None:
        while not done.wait(1 / hertz):
            values.append(act())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield values
    finally:
        done.set()
        thread.join()


def measure_budget(folder: Path, blocks: Sequence[Block], own: int, seconds: float) -> Figures:
    """Random fan-outs under a budget that holds a quarter of the experts."""
    budget = own + len(blocks) // 4 * (blocks[0].artifact.memory + INSTANCE_BYTES)
    calls = 0
    with start("local", PRELOAD, memory_budget=budget) as platform:
        platform.deploy(write_functions(blocks, folder / "budget"))
        platform.prewarm([blocks[0].name])
        choice = random.Random(0)
        with sampled(lambda: pool_bytes(platform), 20) as sizes:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                chosen = choice.sample(blocks, choice.randint(1, len(blocks) // 2))
                platform.invoke_many([Call(block.name, token()) for block in chosen], soon())
                calls += len(chosen)
        evictions = sum(status.evictions for status in platform.status().functions)
    overshoot = max(0.0, max(sizes) / budget - 1)
    return {"budget_overshoot_percent": 100 * overshoot, "budget_calls": calls, "budget_evictions": evictions}


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
    before = platform.copied_bytes()
    dispatch(0, hidden, index, weight)
    copied = platform.copied_bytes() - before
    sums = sum(4 * HIDDEN * len(torch.unique((index // 10 == i).nonzero()[:, 0])) for i in range(len(blocks)))
    milliseconds = median_of(lambda: dispatch(0, hidden, index, weight), 20, 1e3)
    return {
        "prefill_bytes_copied_ratio": (copied + sums) / (hidden.nbytes + sums),
        "prefill_layer_ms": milliseconds,
        "prefill_bytes": copied + sums,
    }


def measure(folder: Path, calls: int, starts: int) -> Figures:
    blocks = make_blocks(folder, 16)
    figures: Figures = {}
    console = Console(stderr=True)
    with start("local", PRELOAD) as platform:
        platform.deploy([FunctionSpec("first", "benchmarks.functions:empty", folder)])
        platform.invoke_many([Call("first", [b""])], soon())
        to_zero(platform, "first")
        own = platform.status().memory_used
        platform.deploy(write_functions(blocks, folder / "artifacts"))
        steps: dict[str, Callable[[], Figures]] = {
            "calls": lambda: measure_calls(platform, folder, calls),
            "experts": lambda: measure_experts(platform, folder, blocks),
            "private memory": lambda: measure_private(platform, blocks),
            "cold starts": lambda: measure_cold(platform, blocks, starts),
            "prefill": lambda: measure_prefill(platform, folder),
            "deployment": lambda: measure_deployment(platform, folder),
        }
        for name, step in steps.items():
            with console.status(name):
                figures |= step()
    with console.status("budget"):
        figures |= measure_budget(folder, blocks, own, 15)
    with console.status("scale to zero"):
        figures |= measure_zero(folder, blocks)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5000, help="empty calls to take the median of")
    parser.add_argument("--starts", type=int, default=50, help="cold starts to take the median of")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.calls, options.starts)
    report(figures, LIMITS, options.json)


if __name__ == "__main__":
    main()
