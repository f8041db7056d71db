"""What the driver does once a second: compares the agents that there are with those that there should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from faasmoe.platforms.ray.driver.cluster import Cluster, RayNode
from faasmoe.platforms.ray.driver.scaling import Scaling
from faasmoe.platforms.ray.messages import AgentFacts, AgentOrder, DriverOrder, FoundNode, NodesReport

_SHARE = 0.8  # of the memory that Ray counts on a node
_DRAIN_SECONDS = 10.0  # for calls that run when a node is to go, unless Ray says when it goes
_LEAST_DRAIN = 1.0  # and what is left to the end of the node


class Driver:
    """For one thread."""

    def __init__(
        self, order: DriverOrder, cluster: Cluster, scaling: Scaling, wall: Callable[[], float] = time.time
    ) -> None:
        self._order = order
        self._cluster = cluster
        self._scaling = scaling
        self._wall = wall
        self._settled = False  # every node has told of its agent
        self._asked: list[dict[str, float]] = []
        self._largest: dict[str, float] = {"CPU": 1.0}  # resources of the largest node that was used

    def tick(self, woken: bool) -> NodesReport:
        """Look at Ray's nodes. `woken`: a client has calls, and found no node."""
        nodes = {node.id: node for node in self._cluster.nodes()}
        for gone in set(self._cluster.held) - set(nodes):
            self._cluster.forget(gone)
        roomy = {id_: node for id_, node in nodes.items() if node.cpus and self._memory(node)}
        staying = {id_: id_ in self._cluster.held for id_, node in roomy.items() if node.leaving is None}
        used = self._scaling.used(staying)
        facts = {id_: self._tend(roomy[id_]) for id_ in used}
        facts |= {id_: self._leave(node) for id_, node in nodes.items() if id_ not in used}
        self._observe([roomy[id_] for id_ in used], facts, woken)
        return self._report(nodes, facts)

    def _memory(self, node: RayNode) -> int:
        """Bytes for functions there; 0: it has too few."""
        wanted = self._order.node_memory or int(_SHARE * node.memory)
        return wanted if wanted <= node.memory else 0

    def _agent(self, node: RayNode) -> AgentOrder:
        return AgentOrder(
            name=node.name,
            host=node.host,
            memory=self._memory(node),
            settings=self._order.agents,
        )

    def _tend(self, node: RayNode) -> AgentFacts | None:
        order = self._agent(node)
        facts = self._cluster.tend(node.id, order)
        if facts is None or facts.foreign:
            return facts
        drained = facts.draining and not facts.port
        if drained or facts.memory != order.memory:  # left by a server before this one, which had other options
            self._cluster.forget(node.id)
            return None
        return facts

    def _leave(self, node: RayNode) -> AgentFacts | None:
        """Ray drains the node, or it is not needed any more: its agent ends when its calls are answered."""
        if node.id not in self._cluster.held:
            return None
        left = node.leaving - self._wall() - _LEAST_DRAIN if node.leaving else _DRAIN_SECONDS
        seconds = max(_LEAST_DRAIN, min(left, _DRAIN_SECONDS))
        self._cluster.drain(node.id, self._order.agents.pool, seconds)
        return self._tend(node)

    def _observe(self, used: Sequence[RayNode], facts: Mapping[str, AgentFacts | None], woken: bool) -> None:
        loads = {node.id: each.load for node in used if (each := facts[node.id]) and each.port}
        memory = min((self._memory(node) for node in used), default=0)
        bundles = [{"CPU": node.cpus, "memory": float(self._memory(node))} for node in used]
        self._largest = max([self._largest, *bundles], key=lambda bundle: bundle.get("memory", 0.0))
        if all(
            facts[node.id] or self._cluster.trouble(node.id) for node in used
        ):  # one that starts will take work
            self._scaling.observe(loads, memory, woken)
        bundles += [self._largest] * (self._scaling.wanted(len(used)) - len(used))
        if bundles != self._asked:
            self._cluster.ask(bundles)
            self._asked = bundles

    def _report(self, nodes: Mapping[str, RayNode], facts: Mapping[str, AgentFacts | None]) -> NodesReport:
        found, troubles, settled = [], [], True
        for id_, node in nodes.items():
            each = facts.get(id_)
            if each and each.port:
                found.append(FoundNode(node.host, each.port))
            elif cause := (each.trouble if each else self._cluster.trouble(id_)):
                troubles.append(f"node {node.name}: {cause}")
            elif id_ in self._cluster.held:
                settled = False  # it has not told yet
        if not self._cluster.held:
            wanted = self._order.node_memory
            memory = "memory" if wanted is None else f"{wanted / (1 << 30):g} GiB of memory"
            troubles.append(f"of {len(nodes)} nodes none has CPUs and {memory} by Ray's count")
        self._settled = self._settled or settled
        return NodesReport(nodes=tuple(found), complete=self._settled, trouble="; ".join(troubles))
