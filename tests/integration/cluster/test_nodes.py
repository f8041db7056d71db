"""A model whose functions run on several nodes: the same bits as on one machine, whatever happens to a node."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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


class Cluster:
    """Nodes a and b, and a platform with the model's functions. Tests that end a node start it again by `revive`."""

    def __init__(self, folder: Path, stack: ExitStack, plan: ModelPlan) -> None:
        self.folder, self._revived = folder, ExitStack()
        self.agents = {each.name: each for each in stack.enter_context(nodes.cluster(folder))}
        stack.enter_context(self._revived)  # ended after the platform, so that they need not drain
        options = nodes.options(folder)
        self.platform: ClusterPlatform = stack.enter_context(registry.start("nodes", PRELOAD, **options))  # type: ignore[assignment, arg-type]
        self.platform.deploy(write_functions(plan.blocks, folder / "artifacts"))

    def have(self, *members: nodes.Agent) -> None:
        """The cluster has these nodes from now on."""
        (self.folder / "list").write_text("".join(f"{each.address}\n" for each in members))
        (self.folder / "list").rename(self.folder / "nodes")

    def revive(self, name: str) -> None:
        """Start a node that has ended, and wait until the cluster is whole again."""
        again = nodes.agent(self.folder, name, listen=self.agents[name].address)
        self.agents[name] = self._revived.enter_context(again)
        self.wait_for("ab")

    def wait_for(self, ready: str) -> None:
        """Wait until these nodes are ready and no other."""
        assert wait_until(lambda: [name for name, state in self.states.items() if state == "ready"] == [*ready])

    @property
    def states(self) -> dict[str, str]:
        return states(self.platform)

    @property
    def used(self) -> set[str]:
        """Nodes with instances."""
        return {each.node for function in self.platform.status().functions for each in function.instances}

    def frames(self) -> dict[str, int]:
        return {link.name: report.traffic.frames for link, report in self.platform.orders.reports()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, plan: ModelPlan) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack, plan)


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[nodes.Agent]]:
    with nodes.cluster(tmp_path) as running:
        yield running


def test_logits_have_the_bits_of_one_machine(cluster: Cluster, plan: ModelPlan, reference: torch.Tensor) -> None:
    before = cluster.frames()
    assert torch.equal(logits(plan, cluster.platform), reference)
    assert cluster.used == {"a", "b"}
    layers = len({block.artifact.layer for block in plan.blocks})
    for node, frames in cluster.frames().items():
        assert 0 < frames - before[node] <= STEPS * layers, f"node {node} had more than a frame a layer"


@pytest.mark.parametrize("batch", [2, 9])
def test_a_node_that_is_killed_costs_no_request(
    cluster: Cluster, plan: ModelPlan, reference: torch.Tensor, batch: int
) -> None:
    got = logits(plan, Interfering(cluster.platform, {batch: cluster.agents["a"].process.kill}))
    assert torch.equal(got, reference)
    assert cluster.states == {"a": "lost", "b": "ready"}
    assert cluster.used == {"b"}
    cluster.agents["a"].process.wait()
    cluster.revive("a")


def test_a_node_that_freezes_is_lost_and_comes_back(
    cluster: Cluster, plan: ModelPlan, reference: torch.Tensor
) -> None:
    platform, frozen = cluster.platform, cluster.agents["a"].process
    platform.membership.route({name: ("ab"[i % 2],) for i, name in enumerate(platform.membership.hosts)})
    assert torch.equal(logits(plan, platform), reference)  # it has instances
    before = platform.status().totals
    try:
        got = logits(plan, Interfering(platform, {9: lambda: frozen.send_signal(signal.SIGSTOP)}))
        assert torch.equal(got, reference)
        assert cluster.states == {"a": "lost", "b": "ready"}
        assert platform.status().totals.invocations > before.invocations
    finally:
        frozen.send_signal(signal.SIGCONT)
    cluster.wait_for("ab")
    assert torch.equal(logits(plan, platform), reference)


def test_a_node_that_drains_costs_no_request(cluster: Cluster, plan: ModelPlan, reference: torch.Tensor) -> None:
    ending = cluster.agents["a"].process
    got = logits(plan, Interfering(cluster.platform, {9: ending.terminate}))
    assert torch.equal(got, reference)
    assert ending.wait(30) == 0
    cluster.revive("a")


def test_placements_replicas_joins_drains_and_kills_change_no_bit(
    cluster: Cluster, plan: ModelPlan, reference: torch.Tensor
) -> None:
    random, platform = Random(0), cluster.platform
    a, b = cluster.agents["a"], cluster.agents["b"]

    def shuffle() -> None:
        """Call other nodes, some functions on two or three."""
        there = [link.name for link in platform.membership.ready()]
        hosts = platform.membership.hosts
        platform.membership.route(
            {name: tuple(random.sample(there, random.randint(1, len(there)))) for name in hosts}
        )

    def drain(wanted: bool) -> Callable[[], None]:
        return lambda: platform.orders.drain("c", wanted)

    with nodes.agent(cluster.folder, "c") as c:
        rounds: list[tuple[str, list[Callable[[], object]]]] = [
            ("ab", [shuffle, shuffle, shuffle]),
            ("abc", [lambda: cluster.have(a, b, c), shuffle, shuffle]),
            ("abc", [shuffle, drain(True), shuffle, drain(False)]),
            ("bc", [shuffle, lambda: cluster.have(b, c)]),
            ("ac", [lambda: cluster.have(a, b, c), shuffle, b.process.kill, shuffle]),
        ]
        batches = STEPS * len({block.artifact.layer for block in plan.blocks})
        for ready, acts in rounds:
            at = sorted(random.sample(range(1, batches + 1), len(acts)))
            got = logits(plan, Interfering(platform, dict(zip(at, acts, strict=True))))
            assert torch.equal(got, reference)
            cluster.wait_for(ready)
        cluster.have(a, b)
        cluster.wait_for("a")
        b.process.wait()
        cluster.revive("b")


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
        assert wait_until(lambda: len(platform.membership.ready()) == 1)
        after = platform.status()
        assert after.totals.instance_gb_seconds >= before.totals.instance_gb_seconds
        assert (after.totals.invocations, after.totals.busy_seconds) == (20, before.totals.busy_seconds)
        assert [f.invocations for f in after.functions] == [5] * 4
        platform.invoke_many(calls, soon())
        assert platform.status().totals.invocations == 24


def test_a_hot_function_gets_a_second_copy_that_is_called(
    agents: list[nodes.Agent], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "artifact").write_text("A:")
    names = [f"f{i}" for i in range(8)]  # a copy of one is an eighth, as much as all replicas may take
    with registry.start("nodes", (), **nodes.options(tmp_path)) as platform:
        assert isinstance(platform, ClusterPlatform)
        monkeypatch.setattr(platform.rebalancer, "_every", (0.1, 0.5))  # seconds between looks, and plans
        artifact = tmp_path / "artifact"
        platform.deploy([spec(name, "echo", artifact, memory=1 << 20, reading=1 << 20) for name in names])
        calls = [Call(name, [b"x"], work=1000.0 if name == "f0" else 1.0) for name in names]

        def runs_twice() -> bool:
            platform.invoke_many(calls, soon())
            hot = next(function for function in platform.status().functions if function.name == "f0")
            return {each.node for each in hot.instances} == {"a", "b"}

        assert wait_until(runs_twice, 30)
        assert wait_until(lambda: set(platform.membership.hosts["f0"]) == {"a", "b"})
        assert all(len(platform.membership.hosts[name]) == 1 for name in names[1:])
        before = {link.name: report.traffic.calls for link, report in platform.orders.reports()}
        for _ in range(6):
            platform.invoke_many([calls[0], calls[0]], soon())
        after = {link.name: report.traffic.calls for link, report in platform.orders.reports()}
        assert all(after[node] > before[node] for node in "ab")  # both are called


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
    with (
        nodes.cluster(tmp_path, "a") as agents,
        ExitStack() as revived,  # ended after the head, so that it need not drain
        registry.start("nodes", (), **nodes.options(tmp_path)) as head,
    ):
        head.deploy([spec("f", "echo", tmp_path / "artifact")])
        head.invoke_many([Call("f", [b"1"])], soon())
        assert head.status().totals.invocations == 1
        agents[0].process.kill()
        agents[0].process.wait()
        revived.enter_context(nodes.agent(tmp_path, "a", listen=agents[0].address))
        assert [bytes(reply) for reply in head.invoke_many([Call("f", [b"2"])], soon())] == [b"A:2"]
        assert wait_until(lambda: head.status().functions[0].invocations == 2)
