"""Machines that are killed, frozen, slow, or whose packets are lost: no request fails, and tokens stay the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import pytest
import torch

from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.experts import PRELOAD
from faasmoe.model.plan import ModelPlan
from faasmoe.platforms import registry
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from tests import nodes
from tests.integration.cluster.generation import Interfering, logits, states
from tests.machines import Machine, missing, network
from tests.waiting import wait_until

BOTH = {"a": "ready", "b": "ready"}


@pytest.fixture(scope="module")
def machines() -> Iterator[list[Machine]]:
    """One for the client, and two for nodes."""
    if why := missing():
        pytest.skip(why)
    with network(3, memory=4 << 30) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(
    machines: list[Machine], plan: ModelPlan, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterPlatform]:
    """Two nodes, with the model's functions deployed."""
    folder = tmp_path_factory.mktemp("cluster")
    with (
        nodes.cluster(folder, machines=machines[1:]),
        machines[0].inside(),
        registry.start("nodes", PRELOAD, **nodes.options(folder)) as running,
    ):
        running.deploy(write_functions(plan.blocks, folder / "artifacts"))
        yield running


@pytest.fixture
def platform(cluster: ClusterPlatform) -> ClusterPlatform:
    """The cluster, when both nodes are there."""
    assert wait_until(lambda: states(cluster) == BOTH), states(cluster)
    return cluster


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    """What is entered here is left when the test ends."""
    with ExitStack() as stack:
        yield stack


def test_a_machine_that_is_cut_off_is_lost_and_comes_back(
    platform: ClusterPlatform, machines: list[Machine], plan: ModelPlan, reference: torch.Tensor
) -> None:
    try:
        assert torch.equal(logits(plan, Interfering(platform, {9: machines[1].cut})), reference)
        assert states(platform) == {"a": "lost", "b": "ready"}
    finally:
        machines[1].mend()
    assert wait_until(lambda: states(platform) == BOTH)
    assert torch.equal(logits(plan, platform), reference)


def slowed(machine: Machine) -> AbstractContextManager[None]:
    if machine.group is None:
        pytest.skip("control groups cannot be made")
    return machine.group.limited(0.1)


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(Machine.frozen, id="frozen"),
        pytest.param(slowed, id="slow"),
        pytest.param(lambda machine: machine.impaired(delay=0.02, loss=0.02), id="impaired"),
    ],
)
def test_a_machine_in_trouble_costs_no_request(
    platform: ClusterPlatform,
    machines: list[Machine],
    plan: ModelPlan,
    reference: torch.Tensor,
    undo: ExitStack,
    begin: Callable[[Machine], AbstractContextManager[None]],
) -> None:
    got = logits(plan, Interfering(platform, {9: lambda: undo.enter_context(begin(machines[1]))}))
    assert torch.equal(got, reference)


def test_a_machine_that_is_killed_costs_no_request(
    platform: ClusterPlatform, machines: list[Machine], plan: ModelPlan, reference: torch.Tensor
) -> None:
    got = logits(plan, Interfering(platform, {9: machines[1].kill}))
    assert torch.equal(got, reference)
    assert states(platform) == {"a": "lost", "b": "ready"}
