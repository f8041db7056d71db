"""Load on the embedded platform while its processes are killed: nothing may fail, and nothing may grow.

    python -m tests.soak --minutes 15 --activations 100000

Two clients of one pool call functions of which half fit into the memory budget, while instances are killed 20 times a
second and the daemon once a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from faasmoe.errors import FaasmoeError
from faasmoe.evaluation.meters.processes import proportional_set_size
from faasmoe.platforms.base import Call, FunctionSpec
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.pool import INSTANCE_BYTES

FUNCTIONS = 24
FITTING = 12  # instances that the budget holds
LARGEST = 200_000  # bytes of a payload: some go through shared memory
DEADLINE = 60.0


@dataclass
class Outcome:
    """What happened."""

    calls: int = 0
    wrong: int = 0
    failed: list[str] = field(default_factory=list)
    kills: int = 0
    daemon_kills: int = 0
    activations: int = 0  # instances started, as far as daemons lived to tell
    start: dict[str, int] = field(default_factory=dict)
    end: dict[str, int] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What must not be."""
        found = [f"{self.wrong} wrong replies"] * bool(self.wrong) + self.failed[:5]
        for what, slack in (("descriptors", 40), ("processes", 4), ("memory", 64 << 20)):
            if self.end[what] > self.start[what] + slack:
                found.append(f"{what} grew from {self.start[what]} to {self.end[what]}")
        return found


def gauge(platform: LocalPlatform) -> dict[str, int]:
    """Resources of this process and of the pool."""
    pids = [os.getpid(), *platform.processes()]
    kept = pids[:2]
    with suppress(psutil.NoSuchProcess):  # the daemon may be killed at any time
        kept += [p.pid for pid in pids[1:2] for p in psutil.Process(pid).children()]
    return {
        "descriptors": sum(_descriptors(pid) for pid in kept),
        "processes": len(pids),
        "memory": sum(map(proportional_set_size, pids)),
    }


def peak(platform: LocalPlatform, seconds: float, done: threading.Event) -> dict[str, int]:
    """The most that `gauge` shows within a while: instances come and go all the time."""
    most: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        most = {what: max(value, most.get(what, 0)) for what, value in gauge(platform).items()}
        done.wait(seconds / 20)
    return most


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except (FileNotFoundError, PermissionError):
        return 0


def load(
    platform: LocalPlatform, seed: int, done: threading.Event, outcome: Outcome, lock: threading.Lock
) -> None:
    """Random fan-outs until `done`; each reply is compared with what the function must answer."""
    choice = random.Random(seed)
    while not done.is_set():
        chosen = choice.sample(range(FUNCTIONS), choice.randint(1, 8))
        payloads = [choice.randbytes(choice.choice((10, 1000, LARGEST))) for _ in chosen]
        calls = [Call(f"f{i}", [p], len(p) + 10) for i, p in zip(chosen, payloads, strict=True)]
        wrong, failed = 0, []
        try:
            replies = platform.invoke_many(calls, time.monotonic() + DEADLINE)
            wrong = sum(bytes(r) != b"A%d:" % i + p for i, p, r in zip(chosen, payloads, replies, strict=True))
        except FaasmoeError as error:
            failed.append(f"{type(error).__name__}: {error}")
        with lock:
            outcome.calls += len(calls)
            outcome.wrong += wrong
            outcome.failed += failed


def kill(
    platform: LocalPlatform, rate: float, daemon_every: float, done: threading.Event, outcome: Outcome
) -> None:
    """Kill an instance `rate` times a second, and the daemon every so many seconds. Counts activations meanwhile."""
    choice = random.Random(99)
    last = next_kill = time.monotonic()
    before = 0  # activations of daemons that are gone
    while not done.wait(max(0.0, next_kill - time.monotonic())):
        next_kill = max(next_kill + 1 / rate, time.monotonic())  # what was missed is not made up for
        status = platform.status()
        outcome.activations = before + status.totals.cold_starts
        if time.monotonic() - last > daemon_every:
            victims: Sequence[int] = platform.processes()[:1]
            last, outcome.daemon_kills = time.monotonic(), outcome.daemon_kills + 1
            before = outcome.activations
        else:
            instances = [pid for function in status.functions for pid in function.instances]
            victims = choice.sample(instances, min(1, len(instances)))
            outcome.kills += len(victims)
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def own_bytes(spec: FunctionSpec) -> int:
    """What daemon and zygote count for in a budget."""
    with LocalPlatform() as platform:
        platform.deploy([spec])
        platform.prewarm([spec.name])
        status = platform.status()
        return status.memory_used - sum(function.memory for function in status.functions)


def soak(seconds: float, rate: float = 20, daemon_every: float = 60, activations: int = 0) -> Outcome:
    """Everything together, until both so much time and so many activations are over."""
    outcome, done, lock = Outcome(), threading.Event(), threading.Lock()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        specs = []
        for i in range(FUNCTIONS):
            artifact = Path(folder) / f"artifact-{i}"
            artifact.write_text(f"A{i}:")
            specs.append(FunctionSpec(f"f{i}", "tests.functions:echo", artifact, keep_alive=5))
        budget = own_bytes(specs[0]) * 11 // 10 + FITTING * INSTANCE_BYTES
        first = stack.enter_context(LocalPlatform(LocalOptions(memory_budget=budget)))
        first.deploy(specs)
        with LocalPlatform(folder=first.folder) as second, LocalPlatform(folder=first.folder) as observer:
            clients = [
                threading.Thread(target=load, args=(platform, i, done, outcome, lock))
                for i, platform in enumerate((first, second))
            ]
            killer = threading.Thread(target=kill, args=(observer, rate, daemon_every, done, outcome))
            for thread in clients:
                thread.start()
            killer.start()
            part = min(15.0, seconds / 4)
            done.wait(part / 2)
            outcome.start = peak(observer, part, done)
            done.wait(seconds - 2.5 * part)
            while outcome.activations < activations and killer.is_alive():
                done.wait(1)
            outcome.end = peak(observer, part, done)
            done.set()
            for thread in (*clients, killer):
                thread.join()
    return outcome


def main() -> None:
    """Soak, say what happened, and fail if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--activations", type=int, default=0, help="go on until so many instances were started")
    args = parser.parse_args()
    outcome = soak(60 * args.minutes, activations=args.activations)
    facts = {key: value for key, value in vars(outcome).items() if key != "failed"}
    print(json.dumps({**facts, "failed": len(outcome.failed), "problems": outcome.problems()}, indent=1))
    sys.exit(bool(outcome.problems()))


if __name__ == "__main__":
    main()
