"""Cold starts and deployment."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import psutil
from tests.processes import of_pool

from benchmarks.figures import Figures
from benchmarks.platform.blocks import MIB, make_blocks, soon, timed, token, weight_file
from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.evaluation.meters.residency import resident_bytes
from faasmoe.model.weights.blocks import Block
from faasmoe.platforms.base import Call
from faasmoe.platforms.local.platform import LocalPlatform


def to_zero(platform: LocalPlatform, name: str) -> None:
    platform.stop([name])
    while any(status.name == name and status.instances for status in platform.status().functions):
        time.sleep(0.005)
    time.sleep(0.05)  # a spare child is forked in the meantime, as it is between two cold starts of real life


def measure_cold(platform: LocalPlatform, blocks: Sequence[Block], starts: int) -> Figures:
    call = [Call(blocks[0].name, token())]
    file, size = weight_file(blocks[0]), sum(part.nbytes for part in blocks[0].artifact.weights[0])
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


_IMPORT = """
import time
import numpy
began = time.perf_counter()
import faasmoe.experts.handler
print(time.perf_counter() - began)
"""


def measure_import(rounds: int) -> Figures:
    """What a process that has numpy takes to import the function, with files in the page cache."""
    command = [sys.executable, "-c", _IMPORT]
    took = [float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(rounds)]
    return {"import_ms": statistics.median(took) * 1e3}


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
    daemon = psutil.Process(of_pool(platform)[0])
    before = sum(daemon.cpu_times()[:2])
    time.sleep(10)
    return {"deploy_1440_s": seconds, "idle_cpu_percent": (sum(daemon.cpu_times()[:2]) - before) * 10}
