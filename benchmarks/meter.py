"""What the meter of evaluations takes, and what it misses.

A recorder walks through all page tables in each sample, which takes several times as much as measuring may. The meter's
estimates are then made from what was recorded: at each instant it is told what walks would have told then, and what
they took. So these figures depend little on what else the machine does.

`load` are processes that come in bursts of ten, share memory with their parent, map a file, and end, while the parent's
memory goes up and down several times a second. The others are strategies of `faasmoe evaluate` on the demo model, or
MODEL.

`cpu_percent` is the CPU time of a meter that ran meanwhile, in percent of a core. Of memory of all processes:
`mean_off_percent` and `peak_off_percent` say by how much its mean over time and its peak differ from what was recorded,
`instant_off_percent` by how much it does at one instant, on average.

    python -m benchmarks.meter [MODEL] [--only load] [--json FILE]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, PAGESIZE, mmap

import numpy as np

from benchmarks.figures import Figures, report
from faasmoe.evaluation.experiment import weights
from faasmoe.evaluation.meters.budget import LIMIT, MOST_SAVED, SHARE, MeterBudget
from faasmoe.evaluation.meters.memory import Members, Memory
from faasmoe.evaluation.meters.meter import INTERVAL, MeasuredUsage, Meter, integral
from faasmoe.evaluation.meters.processes import Family, Footprint, footprint
from faasmoe.evaluation.strategies.host import Host
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import BASELINE, FAASMOE_SHARED, ROLES
from faasmoe.evaluation.workloads.arrivals import bursty
from faasmoe.evaluation.workloads.ask import Ask, Lengths
from faasmoe.evaluation.workloads.paper import paper
from faasmoe.model.checkpoint.source import resolve

SAMPLE_SECONDS = 0.001  # of CPU time for a sample without walks
SECONDS = 20.0
SHARED, FILE, OWN, SPIKE = 60 << 20, 12 << 20, 6 << 20, 40 << 20  # bytes
BURST = 10  # processes
FIGURES = ("cpu_percent", "mean_off_percent", "peak_off_percent", "instant_off_percent")


@dataclass
class Instant:
    """Everybody's memory, and the CPU seconds that walking through it took."""

    at: float
    members: Members
    footprints: Mapping[int, tuple[Footprint, float]]  # by process id

    @property
    def total(self) -> int:
        """Bytes."""
        return sum(found.pss for found, _ in self.footprints.values())


class Recorder:
    """Records a process and all that it starts while it is entered, ten times a second if there is time."""

    def __init__(self, role: str, root: int) -> None:
        self._family = Family(root, role)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record)
        self.instants: list[Instant] = []

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _record(self) -> None:
        while not self._ended.wait(INTERVAL):
            at, members, footprints = time.monotonic(), self._family.look(), {}
            alive = {role: [one for one in its if one.rss] for role, its in members.items()}
            for one in (one for its in alive.values() for one in its):
                begun = time.thread_time()
                found = footprint(one.pid)
                footprints[one.pid] = found, time.thread_time() - begun
            if all(found.rss for found, _ in footprints.values()):  # nobody has ended meanwhile
                then = {
                    role: [replace(one, rss=footprints[one.pid][0].rss) for one in its]
                    for role, its in alive.items()
                }
                self.instants.append(Instant(at, then, footprints))


def replayed(instants: Sequence[Instant]) -> list[int]:
    """Bytes at these instants, as the meter estimates them."""
    now, used = instants[0].at, 0.0
    current = instants[0]

    def walk(pid: int) -> Footprint:
        nonlocal used
        found, cost = current.footprints[pid]
        used += cost
        return found

    memory = Memory(walk, lambda: now, lambda: used)
    memory.look(current.members)
    budget = MeterBudget(SHARE, MOST_SAVED, lambda: now, lambda: used)
    totals = []
    for current in instants:
        now, used = current.at, used + SAMPLE_SECONDS
        totals.append(sum(memory.look(current.members, budget).values()))
    return totals


def compared(instants: Sequence[Instant], usage: MeasuredUsage) -> list[float]:
    """The figures that `FIGURES` names."""
    times, true, found = [one.at for one in instants], [one.total for one in instants], replayed(instants)
    off = np.abs(np.array(found) - np.array(true)) / np.array(true)
    return [
        100 * usage.meter_share,
        100 * (integral(times, found) / integral(times, true) - 1),
        100 * (max(found) / max(true) - 1),
        100 * float(off.mean()),
    ]


@contextmanager
def measured(role: str, root: int, model: str | None = None) -> Iterator[tuple[Recorder, Meter]]:
    """Both on the same processes."""
    with Meter(role, root, weights(model) if model else None) as meter, Recorder(role, root) as recorder:
        yield recorder, meter


def load() -> list[float]:
    """Memory that changes faster than that of any engine."""
    command = [sys.executable, "-m", "benchmarks.meter", "--be-load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        assert root.stdin
        assert root.stdout
        root.stdout.readline()
        with measured("load", root.pid) as (recorder, meter):
            root.stdin.write(b"\n")
            root.stdin.flush()
            root.stdout.readline()
        root.stdin.close()
    return compared(recorder.instants, meter.usage)


def be_load() -> None:
    """The processes of `load`."""
    chance, shared = random.Random(0), touched(SHARED)
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(FILE))
        file.flush()
        print(flush=True)
        sys.stdin.readline()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            ages = [chance.uniform(0.3, 2.5) for _ in range(BURST)]
            children = [child(file.name, shared, age) for age in ages]
            for _ in range(4):
                spike = touched(chance.randrange(SPIKE))
                time.sleep(chance.uniform(0.1, 0.5))
                del spike
            for pid in children:
                os.waitpid(pid, 0)
            time.sleep(chance.uniform(0.0, 2.0))
    print(flush=True)
    sys.stdin.readline()


def child(file: str, shared: bytearray, seconds: float) -> int:
    """A process that lives for so long, and writes to a part of what it shares. Returns its id."""
    if pid := os.fork():
        return pid
    with open(file, "rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as mapped:
        own = [mapped[::PAGESIZE]]
        for part in range(10):
            own.append(bytes(touched(OWN // 20)))
            shared[part * PAGESIZE * 100 : (part + 1) * PAGESIZE * 100 : PAGESIZE] = bytes(100)
            time.sleep(seconds / 10)
    os._exit(0)


def touched(nbytes: int) -> bytearray:
    """Memory that is really there."""
    block = bytearray(nbytes)
    block[::PAGESIZE] = b"\1" * len(block[::PAGESIZE])
    return block


def strategy(name: str, model: str, asks: Sequence[Ask], keep_alive: float, lasts: float = 0.0) -> list[float]:
    """One that answers these requests."""
    tenants = tuple(dict.fromkeys(ask.tenant for ask in asks))
    with Host(Orders(strategy=name, model=model, tenants=tenants, keep_alive=keep_alive)) as host:
        host.play([Ask(None, tenant, 8, 4) for tenant in tenants])
        until = time.monotonic() + lasts
        with measured(ROLES.get(name, "orchestrator"), host.pid, model) as (recorder, meter):
            host.play(asks)
            threading.Event().wait(max(0.0, until - time.monotonic()))
    return compared(recorder.instants, meter.usage)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--only", help="one of load, baseline-paper, faasmoe-paper, faasmoe-bursty")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--be-load", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.be_load:
        be_load()
        return
    model = str(resolve(asked.model).folder)
    bursts = list(bursty(6, 0.3, 20, seed=1, lengths=Lengths(48, 24)))
    cases: dict[str, Callable[[], list[float]]] = {
        "load": load,
        "baseline-paper": lambda: strategy(BASELINE, model, list(paper(max_tokens=16)), 60),
        "faasmoe-paper": lambda: strategy(FAASMOE_SHARED, model, list(paper(2)), 60),
        "faasmoe-bursty": lambda: strategy(FAASMOE_SHARED, model, bursts, 2, 20),
    }
    figures: Figures = {}
    for name, measure in cases.items():
        if asked.only in (None, name):
            figures.update({f"{name}: {figure}": value for figure, value in zip(FIGURES, measure(), strict=True)})
    report(figures, {f"{name}: cpu_percent": 100 * LIMIT for name in cases}, asked.json)


if __name__ == "__main__":
    main()
