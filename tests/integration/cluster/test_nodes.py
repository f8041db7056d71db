"""A model whose functions run on several nodes: the same bits as on one machine, whatever happens to a node."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch

from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.experts import PRELOAD
from faasmoe.model.plan import ModelPlan
from faasmoe.platforms import registry
from faasmoe.platforms.base import Call
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from tests import nodes
from tests.conformance.conftest import soon, spec
from tests.integration.cluster.generation import STEPS, Interfering, logits, states
from tests.waiting import wait_until


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[nodes.Agent]]:
    with nodes.cluster(tmp_path) as running:
        yield running


@pytest.fixture
def platform(agents: list[nodes.Agent], tmp_path: Path, plan: ModelPlan) -> Iterator[ClusterPlatform]:
    """Both nodes, with the model's functions deployed."""
    with registry.start("nodes", PRELOAD, **nodes.options(tmp_path)) as running:
        running.deploy(write_functions(plan.blocks, tmp_path / "artifacts"))
        yield running


def test_logits_have_the_bits_of_one_machine(
    platform: ClusterPlatform, plan: ModelPlan, reference: torch.Tensor
) -> None:
    assert torch.equal(logits(plan, platform), reference)
    used = {each.node for function in platform.status().functions for each in function.instances}
    assert used == {"a", "b"}
    layers = len({block.artifact.layer for block in plan.blocks})
    for link, report in platform.orders.reports():
        assert 0 < report.traffic.frames <= STEPS * layers, f"node {link.name} had more than a frame a layer"


@pytest.mark.parametrize("batch", [2, 9])
def test_a_node_that_is_killed_costs_no_request(
    platform: ClusterPlatform, agents: list[nodes.Agent], plan: ModelPlan, reference: torch.Tensor, batch: int
) -> None:
    got = logits(plan, Interfering(platform, {batch: agents[0].process.kill}))
    assert torch.equal(got, reference)
    assert states(platform) == {"a": "lost", "b": "ready"}
    used = {each.node for function in platform.status().functions for each in function.instances}
    assert used == {"b"}


def test_a_node_that_freezes_is_lost_and_comes_back(
    platform: ClusterPlatform, agents: list[nodes.Agent], plan: ModelPlan, reference: torch.Tensor
) -> None:
    before = platform.status().totals
    frozen = agents[0].process
    try:
        got = logits(plan, Interfering(platform, {9: lambda: frozen.send_signal(signal.SIGSTOP)}))
        assert torch.equal(got, reference)
        assert states(platform) == {"a": "lost", "b": "ready"}
        assert platform.status().totals.invocations > before.invocations
    finally:
        frozen.send_signal(signal.SIGCONT)
    assert wait_until(lambda: states(platform) == {"a": "ready", "b": "ready"})
    assert torch.equal(logits(plan, platform), reference)


def test_a_node_that_drains_costs_no_request(
    platform: ClusterPlatform, agents: list[nodes.Agent], plan: ModelPlan, reference: torch.Tensor
) -> None:
    got = logits(plan, Interfering(platform, {9: agents[0].process.terminate}))
    assert torch.equal(got, reference)
    assert agents[0].process.wait(30) == 0


def test_placements_replicas_joins_drains_and_kills_change_no_bit(
    tmp_path: Path, plan: ModelPlan, reference: torch.Tensor
) -> None:
    random = Random(0)
    with (
        nodes.cluster(tmp_path, "ab") as agents,
        nodes.agent(tmp_path, "c") as third,
        registry.start("nodes", PRELOAD, **nodes.options(tmp_path)) as platform,
    ):
        platform.deploy(write_functions(plan.blocks, tmp_path / "artifacts"))

        def shuffle() -> None:
            """Call other nodes, some functions on two or three."""
            there = [link.name for link in platform.membership.ready()]
            platform.membership.route(
                {
                    name: tuple(random.sample(there, random.randint(1, len(there))))
                    for name in platform.membership.hosts
                }
            )

        def have(*members: nodes.Agent) -> None:
            (tmp_path / "list").write_text("".join(f"{each.address}\n" for each in members))
            (tmp_path / "list").rename(tmp_path / "nodes")

        def drain(wanted: bool) -> Callable[[], None]:
            return lambda: platform.orders.drain("c", wanted)

        rounds: list[list[Callable[[], object]]] = [
            [shuffle, shuffle, shuffle],
            [lambda: have(*agents, third), shuffle, shuffle],
            [shuffle, drain(True), shuffle, drain(False)],
            [shuffle, lambda: have(agents[1], third)],
            [lambda: have(*agents, third), shuffle, agents[1].process.kill, shuffle],
        ]
        batches = STEPS * len({block.artifact.layer for block in plan.blocks})
        for acts in rounds:
            at = sorted(random.sample(range(1, batches + 1), len(acts)))
            got = logits(plan, Interfering(platform, dict(zip(at, acts, strict=True))))
            assert torch.equal(got, reference)
        assert wait_until(lambda: sorted(states(platform).values()) == ["lost", "ready", "ready"])
        assert platform.status().totals.invocations > 0


def test_what_a_lost_node_has_done_stays_in_the_totals(agents: list[nodes.Agent], tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    with registry.start("nodes", (), **nodes.options(tmp_path)) as platform:
        platform.deploy([spec(f"f{i}", "echo", tmp_path / "artifact") for i in range(4)])
        calls = [Call(f"f{i}", [b"x"]) for i in range(4)]
        busy = sum(sum(platform.invoke_many(calls, soon()).busy) for _ in range(5))
        before = platform.status()
        assert before.totals.invocations == 20
        assert before.totals.busy_seconds == pytest.approx(busy)
        agents[0].process.kill()
        assert wait_until(lambda: states(platform)["a"] == "lost")
        after = platform.status()
        assert after.totals.instance_gb_seconds >= before.totals.instance_gb_seconds
        assert (after.totals.invocations, after.totals.busy_seconds) == (20, before.totals.busy_seconds)
        assert [f.invocations for f in after.functions] == [5] * 4
        platform.invoke_many(calls, soon())
        assert platform.status().totals.invocations == 24


def test_clients_of_a_pool_learn_from_each_other(agents: list[nodes.Agent], tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    entry = registry.find("nodes")
    assert entry.connect is not None
    with (
        registry.start("nodes", (), **nodes.options(tmp_path)) as head,
        entry.connect(head.address) as client,
        entry.connect(head.address) as other,
    ):
        client.deploy([spec("f", "echo", tmp_path / "artifact")])
        for each in (other, head):
            assert [bytes(reply) for reply in each.invoke_many([Call("f", [b"1"])], soon())] == [b"A:1"]
        assert [function.invocations for function in other.status().functions] == [2]
        assert entry.running is not None
        assert head.address in entry.running(None)


def test_clients_go_on_when_the_head_of_their_pool_is_gone(agents: list[nodes.Agent], tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    entry = registry.find("nodes")
    assert entry.connect is not None
    with registry.start("nodes", (), **nodes.options(tmp_path)) as head:
        head.deploy([spec(f"f{i}", "echo", tmp_path / "artifact") for i in range(4)])
        client = entry.connect(head.address)
    calls = [Call(f"f{i}", [b"x"]) for i in range(4)]
    with client:
        assert [bytes(reply) for reply in client.invoke_many(calls, soon())] == [b"A:x"] * 4
        agents[0].process.kill()
        assert [bytes(reply) for reply in client.invoke_many(calls, soon())] == [b"A:x"] * 4


def test_a_node_that_is_started_again_is_told_what_it_has_missed(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    with nodes.cluster(tmp_path, "a") as agents, registry.start("nodes", (), **nodes.options(tmp_path)) as head:
        head.deploy([spec("f", "echo", tmp_path / "artifact")])
        head.invoke_many([Call("f", [b"1"])], soon())
        assert head.status().totals.invocations == 1
        agents[0].process.kill()
        agents[0].process.wait()
        with nodes.agent(tmp_path, "a", listen=agents[0].address):
            assert [bytes(reply) for reply in head.invoke_many([Call("f", [b"2"])], soon())] == [b"A:2"]
            assert wait_until(lambda: head.status().functions[0].invocations == 2)
