"""What users notice when a node is lost, or leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from unittest.mock import patch

from tests import nodes
from tests.waiting import wait_until

from benchmarks.cluster.load import Load
from benchmarks.cluster.nodes import KEEP_ALIVE, Cluster, cluster, first_core, last_core
from benchmarks.figures import Figures
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from faasmoe.platforms.cluster.placement.placement import Function

WARM, AFTER = 3.0, 6.0  # seconds of load before and after the loss
PLANNED = 120.0  # within which functions are where they are to be
EVERY, AWAY = 30.0, 1.0  # seconds between kills, and until the node is started again


def measure_kill(model: Path, folder: Path) -> Figures:
    """A node is killed under load: without replicas, and with two of each function, whatever its load."""
    figures = _stall(model, folder / "single", "node_kill", lambda its: its.machines[1].kill())
    with patch("faasmoe.platforms.cluster.placement.plan.replicate", _two_of_each):
        return figures | _stall(model, folder / "two", "replica_kill", lambda its: its.machines[1].kill(), 2)


def _two_of_each(functions: Sequence[Function], _: object, nodes: int, __: object) -> list[int]:
    return [min(2, nodes)] * len(functions)


def measure_partition(model: Path, folder: Path) -> Figures:
    """A node is cut off in silence under load."""
    return _stall(model, folder, "partition", lambda its: its.machines[1].cut())


def _stall(model: Path, folder: Path, name: str, act: Callable[[Cluster], None], copies: int = 1) -> Figures:
    with cluster(folder, [first_core(), last_core()]) as its, its.serving(model) as running:
        load = Load(running.serving)
        load.run(WARM)
        platform = running.serving.platform
        assert isinstance(platform, ClusterPlatform)
        membership = platform.membership
        if not wait_until(lambda: all(len(hosts) == copies for hosts in membership.hosts.values()), PLANNED):
            raise RuntimeError(f"functions have not {copies} hosts each: {membership.hosts}")
        load.run(WARM)
        began = time.monotonic()
        act(its)
        load.run(AFTER)
        load.stop()
        return {
            f"{name}_stall_s": load.gap(began),
            f"{name}_failed": load.failed(),
            f"{name}_differing": load.differing(),
        }


def measure_kills(model: Path, folder: Path, seconds: float) -> Figures:
    """A node is killed and started again at the beginning of each second window of 30 s; `seconds` are with kills.

    What else the machine does meanwhile changes from minute to minute, so windows with and without a kill take turns.
    """
    with (
        cluster(folder, [first_core(), last_core()]) as its,
        its.serving(model) as running,
        ExitStack() as again,
    ):
        load = Load(running.serving)
        load.run(WARM)
        undisturbed, disturbed, gaps = [], [], []
        for _ in range(round(seconds / EVERY)):
            began = time.monotonic()
            load.run(EVERY)
            undisturbed.append(load.rate(began))
            began = time.monotonic()
            its.machines[1].kill()
            load.run(AWAY)
            again.enter_context(_started_again(its))
            load.run(began + EVERY - time.monotonic())
            disturbed.append(load.rate(began))
            gaps.append(load.gap(began))
        load.stop()
        return {
            "kills_throughput_loss_percent": 100 * (1 - sum(disturbed) / sum(undisturbed)),
            "kills_failed": load.failed(),
            "kills_longest_gap_s": max(gaps),
            "kills_differing": load.differing(),
        }


def _started_again(its: Cluster) -> AbstractContextManager[nodes.Agent]:
    agent = its.agents[1]
    return nodes.agent(its.folder, agent.name, *KEEP_ALIVE, listen=agent.address, machine=its.machines[1])


def measure_drain(model: Path, folder: Path) -> Figures:
    """A node is told to end under load."""
    with cluster(folder, [first_core(), last_core()]) as its, its.serving(model) as running:
        load = Load(running.serving)
        load.run(WARM)
        began = time.monotonic()
        its.agents[1].process.terminate()
        its.agents[1].process.wait(60)
        took = time.monotonic() - began
        load.run(2.0)
        load.stop()
        return {"drain_failed": load.failed(), "drain_s": took, "drain_longest_gap_s": load.gap(began)}
