"""What the driver does once a second: compares the agents that there are with those that there should be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.ray.driver.cluster import Cluster, RayNode
from faasmoe.platforms.ray.driver.scaling import Scaling
from faasmoe.platforms.ray.messages import AgentFacts, AgentOrder, Certificate, DriverOrder, NodesReport

_SHARE = 0.8  # of the memory that Ray counts on a node
_DRAIN_SECONDS = 10.0  # for calls that run when a node is to go, unless Ray says when it goes
_TAKE_SECONDS = 60.0  # for an agent to take its certificate
_LEAST_DRAIN = 1.0  # and what is left to the end of the node


Certify = Callable[[bytes, str], Certificate]  # of a signing request and a node's name


class Driver:
    """For one thread."""

    def __init__(
        self,
        order: DriverOrder,
        cluster: Cluster,
        scaling: Scaling,
        certify: Certify,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._order = order
        self._cluster = cluster
        self._scaling = scaling
        self._certify = certify
        self._wall = wall
        self._certificates: dict[str, Certificate] = {}  # the last one of each node
        self._certified: dict[str, float] = {}  # when it was made
        self.waits = True  # an agent that is used has not told yet where it listens, or why it does not
        self._settled = False  # all have, once
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
        return self._report(nodes, facts, used)

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
            certificate=self._certificates.get(node.id),
        )

    def _tend(self, node: RayNode) -> AgentFacts | None:
        order = self._agent(node)
        facts = self._cluster.tend(node.id, order)
        if facts is None or facts.foreign:
            return facts
        drained = facts.draining and not facts.load.port
        if drained or facts.memory != order.memory:  # left by a server before this one, which had other options
            self._cluster.forget(node.id)
            return None
        if facts.load.request:
            self._provide(node, facts.load.request)
        return facts

    def _provide(self, node: RayNode, request: bytes) -> None:
        """Have a certificate for the node's next order, unless the agent has not yet had the time to take one."""
        known, now = self._certificates.get(node.id), self._wall()
        if known is None or known.request != request or now > self._certified[node.id] + _TAKE_SECONDS:
            self._certificates[node.id], self._certified[node.id] = self._certify(request, node.name), now

    def _leave(self, node: RayNode) -> AgentFacts | None:
        """Ray drains the node, or it is not needed any more: its agent ends when its calls are answered."""
        if node.id not in self._cluster.held:
            return None
        left = node.leaving - self._wall() - _LEAST_DRAIN if node.leaving else _DRAIN_SECONDS
        seconds = max(_LEAST_DRAIN, min(left, _DRAIN_SECONDS))
        self._cluster.drain(node.id, seconds)
        return self._tend(node)

    def _observe(self, used: Sequence[RayNode], facts: Mapping[str, AgentFacts | None], woken: bool) -> None:
        loads = {node.id: each.load for node in used if (each := facts[node.id]) and each.load.port}
        memory = min((self._memory(node) for node in used), default=0)
        bundles = [{"CPU": node.cpus, "memory": float(self._memory(node))} for node in used]
        self._largest = max([self._largest, *bundles], key=lambda bundle: bundle.get("memory", 0.0))
        if all(node.id in loads or self._trouble(node.id, facts) for node in used):  # one that starts takes work
            self._scaling.observe(loads, memory, woken)
        bundles += [self._largest] * (self._scaling.wanted(len(used)) - len(used))
        if bundles != self._asked:
            self._cluster.ask(bundles)
            self._asked = bundles

    def _trouble(self, node: str, facts: Mapping[str, AgentFacts | None]) -> str:
        """Why the node's agent does not listen; empty if it may yet."""
        told = facts.get(node)
        return told.trouble if told else self._cluster.trouble(node)

    def _report(
        self, nodes: Mapping[str, RayNode], facts: Mapping[str, AgentFacts | None], used: Sequence[str]
    ) -> NodesReport:
        found, troubles, settled = [], [], True
        for id_, node in nodes.items():
            each = facts.get(id_)
            if each and each.load.port:
                found.append(NodeAddress(node.host, each.load.port))
            elif cause := self._trouble(id_, facts):
                troubles.append(f"node {node.name}: {cause}")
            elif id_ in used:
                settled = False  # it has not told yet
        if not used:
            wanted = self._order.node_memory
            memory = "memory" if wanted is None else f"{wanted / (1 << 30):g} GiB of memory"
            troubles.append(f"of {len(nodes)} nodes none has CPUs and {memory} by Ray's count")
        self.waits, self._settled = not settled, self._settled or settled
        return NodesReport(nodes=tuple(found), complete=self._settled, trouble="; ".join(troubles))
