"""What `faasmoe nodes` tells of each node."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.platforms.cluster.client.platform import ClusterPlatform


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node, as a client sees it. Figures of a node that is not there are 0."""

    name: str  # empty if it was never reached
    address: str
    state: str  # of `NodeState`, or refused
    cause: str = ""  # why it is lost or refused, or cannot get weights
    memory_used: int = 0  # bytes
    memory_budget: int | None = None
    functions: int = 0  # that it hosts
    lacking: int = 0  # of these, without weights yet
    fetched: int = 0  # bytes of weights
    instances: int = 0
    orchestrators: int = 0  # that it runs
    calls: int = 0  # answered since the agent was started
    frames: int = 0  # in which these came
    received: int = 0  # bytes
    sent: int = 0
    round_trip: float = 0.0  # seconds, of a heartbeat


def node_facts(platform: ClusterPlatform) -> list[NodeFacts]:
    """All nodes of a cluster, in the order of the list."""
    reports = {link.address: report for link, report in platform.orders.reports()}
    hosts = list(platform.membership.hosts.values())
    facts = []
    for link in platform.membership.links:
        state, address = platform.membership.state(link), str(link.address)
        report = reports.get(link.address)
        if report is None:
            facts.append(NodeFacts(name=link.name, address=address, state=state, cause=link.cause))
            continue
        facts.append(
            NodeFacts(
                name=link.name,
                address=address,
                state=report.state,
                cause=report.weights.cause,
                memory_used=report.pool.memory_used,
                memory_budget=report.pool.memory_budget,
                functions=sum(link.name in its for its in hosts),
                lacking=report.weights.lacking,
                fetched=report.weights.fetched,
                orchestrators=report.orchestrators,
                instances=sum(len(function.instances) for function in report.pool.functions),
                calls=report.traffic.calls,
                frames=report.traffic.frames,
                received=report.traffic.received,
                sent=report.traffic.sent,
                round_trip=link.round_trip,
            )
        )
    return facts
