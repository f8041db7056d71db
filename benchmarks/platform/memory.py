"""The memory of a pool: of one instance, at zero, and under a budget."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import processes

from benchmarks.figures import Figures
from benchmarks.platform.blocks import soon, timed, token, weight_file
from benchmarks.pool import local_pool
from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.evaluation.meters.processes import footprint, proportional_set_size
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.limits import INSTANCE_BYTES
from faasmoe.platforms.local.platform import LocalPlatform


def measure_private(platform: LocalPlatform, blocks: Sequence[Block]) -> Figures:
    weights = str(weight_file(blocks[0]))
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


def pool_bytes(platform: LocalPlatform) -> int:
    return sum(map(proportional_set_size, processes.of_pool(platform)))


def zygote_bytes(platform: LocalPlatform) -> int:
    """What the zygote takes, as if it had forked nobody."""
    _, zygote, *forked = map(footprint, processes.of_pool(platform))
    return zygote.pss + sum(worker.pss - worker.private for worker in forked)


def measure_zero(folder: Path, blocks: Sequence[Block], rounds: int) -> Figures:
    """The pool once no function runs: while the zygote waits for calls, when it has gone too, and the way back."""
    with_zygote, zygotes, alone, again = [], [], [], []
    with local_pool(keep_alive=0.5, zygote_keep_alive=3) as platform:
        platform.deploy(write_functions(blocks, folder / "zero"))
        platform.invoke_many([Call(block.name, token()) for block in blocks[:4]], soon())
        for _ in range(rounds):
            while any(status.instances for status in platform.status().functions):
                time.sleep(0.1)
            time.sleep(1)  # the next workers are forked
            with_zygote.append(pool_bytes(platform))
            zygotes.append(zygote_bytes(platform))
            while processes.of_pool(platform):
                time.sleep(0.1)
            alone.append(pool_bytes(platform))
            again.append(timed(lambda: platform.invoke_many([Call(blocks[0].name, token())], soon())))
    return {
        "zero_pool_mb": statistics.median(alone) / 1e6,
        "zero_pool_with_zygote_mb": statistics.median(with_zygote) / 1e6,
        "zygote_mb": statistics.median(zygotes) / 1e6,
        "from_zero_ms": statistics.median(again) * 1e3,
    }


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
    with local_pool(memory_budget=budget) as platform:
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
