"""Puts the orchestrators of a node together: agents know none, and those who run them know no agent."""

from __future__ import annotations

from collections.abc import Callable

from faasmoe.fleet.template_host import TemplateHost
from faasmoe.platforms.cluster.agent.hosting import NodeHosting
from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
from faasmoe.platforms.cluster.weights.node_weights import NodeWeights


def hosting_of(node: str, orchestrators: int, folder: ClusterFolder) -> Callable[[NodeWeights], NodeHosting]:
    """What makes the part of an agent that runs up to so many orchestrators."""
    return lambda weights: NodeHosting(node, TemplateHost(orchestrators), folder.orchestrator(node), weights)
