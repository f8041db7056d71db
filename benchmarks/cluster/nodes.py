"""Nodes for benchmarks: agents on machines of a network, each with one core, and a client on the first core."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import nodes
from tests.machines import Machine, network

from benchmarks.decode.serving import Ours, ours
from faasmoe.experts import PRELOAD
from faasmoe.platforms.base import Platform
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.registry import start

ROOT = Path(__file__).parents[2]
KEEP_ALIVE = ("--keep-alive", "3600")


@dataclass(frozen=True)
class Cluster:
    """Agents on machines, and a machine for a client, which has the first core."""

    folder: Path
    client: Machine
    machines: Sequence[Machine]
    agents: Sequence[nodes.Agent]

    def connect(self) -> ClusterPlatform:
        """The head of a new pool; for threads `inside` the client's machine."""
        platform = start("nodes", PRELOAD, **nodes.options(self.folder))
        assert isinstance(platform, ClusterPlatform)
        return platform

    @contextmanager
    def platform(self) -> Iterator[ClusterPlatform]:
        """The head of a new pool, whose threads and caller are on the client's machine."""
        with self.client.inside(), self.connect() as platform:
            yield platform

    @contextmanager
    def serving(self, model: Path) -> Iterator[Ours]:
        """A model whose functions are on the nodes, and whose dense part is on the client's core."""
        with self.client.inside(), ours(model, self.connect) as running:
            yield running


@contextmanager
def cluster(
    folder: Path, cores: Sequence[int], module: str = "faasmoe.cli.main", arguments: Sequence[str] = ()
) -> Iterator[Cluster]:
    """A node on each of these cores, started by the command of `module` with `arguments`."""
    folder.mkdir(exist_ok=True)
    os.environ["PYTHONPATH"] = str(ROOT)  # functions of the benchmark
    with ExitStack() as stack:
        client, *machines = stack.enter_context(
            network(1 + len(cores), [[first_core()], *([core] for core in cores)])
        )
        names = [f"node-{i}" for i in range(len(cores))]
        agents = stack.enter_context(
            nodes.cluster(folder, names, *KEEP_ALIVE, *arguments, machines=machines, module=module)
        )
        yield Cluster(folder, client, machines, agents)


@contextmanager
def embedded(model: Path, cores: Sequence[int]) -> Iterator[Ours]:
    """A model whose instances are held to `cores`, and whose dense part is on the first core."""
    with held_to([first_core()]), ours(model, lambda: embedded_platform(cores)) as running:
        yield running


def embedded_platform(cores: Sequence[int]) -> Platform:
    """The embedded platform, whose instances are held to `cores`."""
    with held_to(cores):
        return start("local", PRELOAD, keep_alive=3600)


@contextmanager
def held_to(cores: Sequence[int]) -> Iterator[None]:
    """Hold this thread, and what it starts meanwhile, to `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def first_core() -> int:
    return min(os.sched_getaffinity(0))


def last_core() -> int:
    return max(os.sched_getaffinity(0))
