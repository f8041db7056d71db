"""What is used of Ray, whose parts without an underscore do not tell of draining nodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.state import state as global_state
from ray.autoscaler.sdk import request_resources
from ray.exceptions import ActorDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from faasmoe.platforms.ray.actor.actor import AgentActor
from faasmoe.platforms.ray.driver.cluster import RayNode
from faasmoe.platforms.ray.messages import AgentFacts, AgentOrder
from faasmoe.util.closeable import Closeable

_TELL_SECONDS = 1.0  # for actors to end their agents
_RETRY = 10.0  # seconds until an actor is made in place of one that has ended for good
_PATIENCE = 15.0  # seconds for Ray to start an actor
_LONGEST_NAME = 57  # of a node, before the part of its id that makes the name unique


@dataclass(slots=True)
class _Actor:
    handle: Any
    asking: Any = None  # a reference to the answer that is awaited
    since: float = 0.0  # when it was asked, or has answered
    facts: AgentFacts | None = None
    trouble: str = ""
    drained: bool = False  # it was told to drain
    ended: bool = False  # for good


@dataclass(slots=True)
class RayCluster(Closeable):
    """The Ray cluster of this process. Implements `Cluster`, whose methods raise `failures` if Ray's head is gone."""

    failures = (RayError, RuntimeError)

    namespace: str
    pool: str
    _actors: dict[str, _Actor] = field(default_factory=dict)  # by the node's id

    @classmethod
    def connect(cls, address: str, namespace: str, pool: str) -> RayCluster:
        """`pool` is the server's. Raises `ConnectionError` or another error of Ray's if there is none at `address`."""
        ray.init(address, namespace=namespace, log_to_driver=False, configure_logging=False)
        return cls(namespace, pool)

    def nodes(self) -> list[RayNode]:
        """See `Cluster`."""
        leaving = global_state.get_draining_nodes()  # milliseconds
        return [_node(raw, leaving.get(raw["NodeID"])) for raw in ray.nodes() if raw["Alive"]]

    def tend(self, node: str, order: AgentOrder) -> AgentFacts | None:
        """See `Cluster`."""
        actor = self._actors.get(node)
        if actor is None or (actor.ended and time.monotonic() > actor.since + _RETRY):
            actor = self._actors[node] = _Actor(self._make(node, order))
        _hear(actor)
        if actor.asking is None and not actor.ended:
            actor.asking, actor.since = actor.handle.tend.remote(order), time.monotonic()
        return actor.facts

    def trouble(self, node: str) -> str:
        """See `Cluster`."""
        return self._actors[node].trouble if node in self._actors else ""

    def _make(self, node: str, order: AgentOrder) -> Any:
        """Several servers may do so at once: Ray makes one actor of a name."""
        return (
            ray.remote(AgentActor)
            .options(
                name=f"agent-{node}",
                namespace=self.namespace,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                num_cpus=0,
                memory=order.memory,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )
            .remote(order.memory, leave)
        )

    def drain(self, node: str, seconds: float) -> None:
        """See `Cluster`."""
        actor = self._actors.get(node)
        if actor is not None and not actor.drained:
            actor.drained = True
            actor.handle.drain.remote(self.pool, seconds)

    def forget(self, node: str) -> None:
        """See `Cluster`."""
        self._forget([node])

    def _forget(self, nodes: Sequence[str]) -> None:
        """An actor that is killed cannot tell its agent, which would take that for a failure of Ray's for a while."""
        actors = [actor for node in nodes if (actor := self._actors.pop(node, None))]
        handles = [actor.handle for actor in actors if actor.facts and not actor.facts.foreign]
        if handles:
            told = [handle.drain.remote(self.pool, 0.0) for handle in handles]
            ray.wait(told, num_returns=len(told), timeout=_TELL_SECONDS)
        for handle in handles:
            with suppress(RayError, ValueError):  # it is gone already
                ray.kill(handle)

    @property
    def held(self) -> list[str]:
        """See `Cluster`."""
        return list(self._actors)

    def ask(self, bundles: Sequence[dict[str, float]]) -> None:
        """See `Cluster`."""
        request_resources(bundles=list(bundles))

    def close(self) -> None:
        """End all agents, and need no nodes any more."""
        self._forget(list(self._actors))
        self.ask([])
        ray.shutdown()


def _hear(actor: _Actor) -> None:
    """Take the actor's answer, if one has come."""
    if actor.asking is None:
        return
    if not ray.wait([actor.asking], timeout=0)[0]:
        if actor.facts is None and time.monotonic() > actor.since + _PATIENCE:
            actor.trouble = "Ray has not started its actor; is the memory taken?"
        return
    try:
        actor.facts, actor.trouble = ray.get(actor.asking), ""
    except RayError as error:  # unless it has ended, Ray starts it again
        actor.ended = isinstance(error, ActorDiedError)
        actor.facts, actor.trouble = None, f"its actor does not answer: {str(error).strip().splitlines()[-1]}"
    actor.asking, actor.since = None, time.monotonic()


def leave() -> None:
    """End the actor that calls this, for good."""
    ray.kill(ray.get_runtime_context().current_actor)


def _node(raw: dict[str, Any], leaving: int | None) -> RayNode:
    resources = raw["Resources"]
    return RayNode(
        id=raw["NodeID"],
        name=f"{raw['NodeName'][:_LONGEST_NAME]}-{raw['NodeID'][:6]}",
        host=raw["NodeManagerAddress"],
        cpus=resources.get("CPU", 0.0),
        memory=int(resources.get("memory", 0)),
        leaving=None if leaving is None else leaving / 1000,
    )
