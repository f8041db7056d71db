"""Nodes that do not see the files of the server, which lie in its working directory and are named by that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from faasmoe.engine.experts.dispatch import write_functions
from faasmoe.errors import PlatformError
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import ModelSource
from faasmoe.model.plan import ModelPlan, make_plan
from faasmoe.platforms import registry
from faasmoe.platforms.cluster.client.platform import ClusterPlatform
from tests import nodes
from tests.integration.cluster.generation import logits
from tests.tiny import save_tiny
from tests.waiting import wait_until

HERE = Path("/proc/self/cwd")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelPlan]:
    """Of a model whose files lie in the working directory."""
    folder = tmp_path_factory.mktemp("server")
    save_tiny("qwen2_moe", folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FAASMOE_CACHE", str(folder / "cache"))
        yield make_plan(ModelSource("tiny", HERE / "model"), 2, "float32")


@pytest.fixture(scope="module")
def reference(plan: ModelPlan, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The logits of all steps on one machine."""
    artifacts = tmp_path_factory.mktemp("artifacts")
    with registry.start("local", PRELOAD) as platform:
        platform.deploy(write_functions(plan.blocks, artifacts))
        return logits(plan, platform)


def fetched(platform: ClusterPlatform) -> dict[str, int]:
    return {link.name: report.weights.fetched for link, report in platform.orders.reports()}


def test_a_node_fetches_what_it_hosts_once(plan: ModelPlan, reference: torch.Tensor, tmp_path: Path) -> None:
    with ExitStack() as stack:
        a = stack.enter_context(nodes.agent(tmp_path, "a", own=tmp_path / "a"))
        b = stack.enter_context(nodes.agent(tmp_path, "b", own=tmp_path / "b"))
        (tmp_path / "nodes").write_text(f"{a.address}\n{b.address}\n")
        platform = stack.enter_context(registry.start("nodes", PRELOAD, **nodes.options(tmp_path)))
        platform.deploy(write_functions(plan.blocks, tmp_path / "artifacts"))
        assert torch.equal(logits(plan, platform), reference)

        hosts = dict(platform.membership.hosts)
        first = fetched(platform)
        for node, got in first.items():
            nbytes = sum(b.artifact.nbytes for b in plan.blocks if hosts[b.name] == (node,))
            assert nbytes < got < 1.05 * nbytes

        a.process.kill()
        a.process.wait()
        stack.enter_context(nodes.agent(tmp_path, "a", own=tmp_path / "a", listen=a.address))
        assert wait_until(lambda: len(platform.membership.ready()) == 2)

        def only_what_is_new() -> bool:
            """Functions may move to a node that has come back: it fetches theirs, and then they are hosted there."""
            again, now = fetched(platform).get("a", math.inf), platform.membership.hosts
            new = [b for b in plan.blocks if "a" in now[b.name] and "a" not in hosts[b.name]]
            return again <= 1.05 * sum(b.artifact.nbytes for b in new)

        assert wait_until(only_what_is_new), fetched(platform)
        assert torch.equal(logits(plan, platform), reference)


def test_a_node_without_room_fails_no_request_while_another_has_the_weights(
    plan: ModelPlan, reference: torch.Tensor, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        a = stack.enter_context(nodes.agent(tmp_path, "a", "--weights-cache", "1KB", own=tmp_path / "a"))
        b = stack.enter_context(
            nodes.agent(tmp_path, "b", "--weights", str(Path.cwd() / "model"), own=tmp_path / "b")
        )
        (tmp_path / "nodes").write_text(f"{a.address}\n{b.address}\n")
        platform = stack.enter_context(registry.start("nodes", PRELOAD, **nodes.options(tmp_path)))
        platform.deploy(write_functions(plan.blocks, tmp_path / "artifacts"))
        assert torch.equal(logits(plan, platform), reference)
        assert fetched(platform) == {"a": 0, "b": 0}
        report = {link.name: report.weights for link, report in platform.orders.reports()}
        assert report["a"].lacking > 0
        assert "no room for" in report["a"].cause

        b.process.kill()
        b.process.wait()
        error = (
            r"layer-.*its weights \(/proc/self/cwd/model/model\.safetensors\) cannot be had: no room .*\(node a\)"
        )
        with pytest.raises(PlatformError, match=error):
            logits(plan, platform)
