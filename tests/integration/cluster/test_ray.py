"""Functions on the nodes of a real Ray cluster, with token authentication on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms import registry
from faasmoe.platforms.base import Call
from faasmoe.platforms.ray.platform import RayPlatform
from tests import ray_nodes
from tests.conformance.conftest import soon, spec
from tests.ray_nodes import RayNodes, kill, processes
from tests.refusals import refused
from tests.waiting import wait_until

pytestmark = ray_nodes.needs_ray

AGENT, ACTOR, DRIVER = "faasmoe.platforms.ray.actor.agent", "ray::AgentActor", "faasmoe.platforms.ray.driver"
COUNT = 4
CALLS = [Call(f"f{i}", [b"x"]) for i in range(COUNT)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    with ray_nodes.ray_nodes(RAY_gcs_rpc_server_reconnect_timeout_s="2") as running:
        yield running
    kill(processes(AGENT))  # they outlive Ray, as long as a server had them a moment ago


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("artifacts") / "artifact"
    file.write_text("A:")
    return file


@pytest.fixture(scope="module")
def platform(cluster: RayNodes, artifact: Path) -> Iterator[RayPlatform]:
    with registry.start("ray", (), **cluster.options()) as running:
        assert isinstance(running, RayPlatform)
        assert wait_until(lambda: len(ready(running)) == 2)
        running.deploy([spec(f"f{i}", "echo", artifact) for i in range(COUNT)])
        yield running


def ready(platform: RayPlatform) -> set[str]:
    """The hosts of nodes that take calls."""
    return {link.address.host for link in platform.membership.ready()}


def agents_of(platform: RayPlatform) -> set[str]:
    """Those of nodes that take calls: another one when it was started again."""
    return {link.incarnation for link in platform.membership.ready()}


def answers(platform: RayPlatform) -> bool:
    return [bytes(reply) for reply in platform.invoke_many(CALLS, soon())] == [b"A:x"] * COUNT


def test_functions_run_on_every_node(platform: RayPlatform, cluster: RayNodes) -> None:
    assert answers(platform)
    used = {each.node.split("-")[0] for function in platform.status().functions for each in function.instances}
    assert used == {"127.0.0.2", "127.0.0.3"}
    assert platform.status().memory_budget == 2 << 29
    assert cluster.ask("requested") == [{"CPU": 1.0, "memory": float(1 << 29)}] * 2


def test_other_processes_of_the_server_call_them(platform: RayPlatform) -> None:
    entry = registry.find("ray")
    assert entry.connect is not None
    with entry.connect(platform.address) as client:
        assert [bytes(reply) for reply in client.invoke_many(CALLS, soon())] == [b"A:x"] * COUNT
    assert entry.running is not None
    assert platform.address in entry.running(None)


def test_an_agent_and_an_actor_that_are_killed_are_started_again(platform: RayPlatform) -> None:
    before = agents_of(platform)
    (actor, *_), agents = processes(ACTOR), processes(AGENT)
    kill([actor])  # another one takes the place of its agent
    assert wait_until(lambda: answers(platform) and len(agents_of(platform) - before) == 1)
    kill(set(processes(AGENT)) & set(agents))
    assert wait_until(lambda: answers(platform) and len(agents_of(platform) - before) == 2)
    assert len(processes(AGENT)) == 2


def test_the_loss_of_the_driver_costs_nothing(platform: RayPlatform) -> None:
    before = agents_of(platform)
    (driver,) = processes(DRIVER)
    driver.kill()
    assert answers(platform)
    assert wait_until(lambda: processes(DRIVER) not in ([], [driver]))
    assert agents_of(platform) == before


def test_a_second_server_is_told_that_nodes_are_taken(platform: RayPlatform, cluster: RayNodes) -> None:
    assert re.search(r"node 127.0.0.2-.*: another server has an agent there", refusal(cluster))
    assert answers(platform)
    assert len(ready(platform)) == 2


def refusal(cluster: RayNodes) -> str:
    """What another server is told that starts. Gives it as long as Ray needs to answer."""
    for seconds in (3.0, 12.0, 48.0):
        told = refused("ray", **cluster.options(start_seconds=seconds))
        if "another server" in told:
            break
    return told


def test_idle_nodes_are_released_and_come_back(cluster: RayNodes, artifact: Path) -> None:
    scales = {"namespace": "idle", "min_nodes": 0, "idle_seconds": 1.0, "keep_alive": 0.2}
    with registry.start("ray", (), **cluster.options(**scales)) as idle:
        assert isinstance(idle, RayPlatform)
        idle.deploy([spec(f"f{i}", "echo", artifact) for i in range(COUNT)])
        assert answers(idle)
        assert wait_until(lambda: not ready(idle) and cluster.ask("requested") == [])
        assert answers(idle)
    assert cluster.ask("requested") == []
    assert wait_until(lambda: len(processes(AGENT)) == 2)  # those of the first server


def test_a_node_that_ray_drains_costs_no_call_and_another_takes_its_place(
    platform: RayPlatform, cluster: RayNodes
) -> None:
    assert cluster.ask("drain", 1, 60)
    assert wait_until(lambda: answers(platform) and ready(platform) == {"127.0.0.2"})
    cluster.ask("add")
    assert wait_until(lambda: answers(platform) and ready(platform) == {"127.0.0.2", "127.0.0.4"})


def test_without_its_head_serving_goes_on(platform: RayPlatform, cluster: RayNodes) -> None:
    """Also when Ray has given up all nodes, as it has not heard of the head for long, and with them its actors."""
    before = agents_of(platform)
    cluster.ask("behead")
    assert answers(platform)
    assert wait_until(lambda: cluster.ask("ended") == 3 and not processes(ACTOR))
    assert answers(platform)
    assert agents_of(platform) == before
    assert ready(platform) == {"127.0.0.2", "127.0.0.4"}
