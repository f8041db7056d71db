"""Ray's actor on a node, in a worker process of Ray's. It starts the node's agent in another process, and tends it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import msgspec

from faasmoe.platforms.ray.actor.agent_process import AgentProcess
from faasmoe.platforms.ray.messages import AgentFacts, AgentOrder
from faasmoe.util.backoff import Backoff

_LEASE = 15.0  # seconds that an agent stays with a server that does not ask for it
_FORGOTTEN = 60.0  # seconds until an agent that no server has is ended with its actor
_LOOK_SECONDS = 5.0  # between looks whether a server that does not ask has it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds between agents that ended unasked


class AgentActor:
    """Ray pickles what its methods take and return, and calls them one at a time."""

    def __init__(
        self,
        memory: int,
        leave: Callable[[], None],
        start: Callable[[AgentOrder], AgentProcess] = AgentProcess,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`memory`: bytes that Ray has reserved. `leave` ends the actor for good."""
        self._memory = memory
        self._leave = leave
        self._start = start
        self._clock = clock
        self._agent: AgentProcess | None = None
        self._order: AgentOrder | None = None
        self._asked = clock()  # when a server asked last
        self._draining = False
        self._trouble = ""
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE, clock=clock)
        self._lock = threading.Condition()  # of what is above
        threading.Thread(target=self._watch, name="actor", daemon=True).start()

    def _watch(self) -> None:
        """End the agent and the actor when nobody has asked for so long."""
        with self._lock:
            while (left := self.forgotten_in()) > 0:
                self._lock.wait(left)
            self._end()
        self._leave()

    def forgotten_in(self) -> float:
        """Seconds until no server needs the agent, at the earliest. 0: none does.

        A server that has died cannot say so, and one that has lost Ray's head has the agent still. Whoever calls this
        holds the lock.
        """
        if (left := self._asked + _FORGOTTEN - self._clock()) > 0:
            return left
        load = self._agent and self._agent.load()
        return _LOOK_SECONDS if load and load.claimed else 0.0

    def tend(self, order: AgentOrder) -> AgentFacts:
        """See that an agent runs as ordered, and tell of it. Waits until it listens."""
        with self._lock:
            return self._tend(order)

    def _tend(self, order: AgentOrder) -> AgentFacts:
        now = self._clock()
        if self._order is None or order.settings.pool != self._order.settings.pool:
            if self._order is not None and (now < self._asked + _LEASE or self._is_headed()):
                trouble = "another server has an agent there; give this one another namespace"
                return AgentFacts(memory=self._memory, foreign=True, trouble=trouble)
            self._end()
            self._draining = False
        self._order, self._asked = order, now
        if self._agent is not None:
            if order.certificate is not None:
                self._agent.certify(order.certificate)
            if (load := self._agent.load()) is not None:
                return AgentFacts(memory=self._memory, load=load, draining=self._draining)
            if not self._draining:
                self._trouble = f"its agent has ended: {self._agent.trouble}"
                self._backoff.failed()
        self._end()
        if not (self._draining or self._backoff.left):
            self._begin(order)
        return self._facts(self._trouble)

    def _is_headed(self) -> bool:
        """Whether the agent's server is there, although it does not ask: its driver is started again, say."""
        load = self._agent and self._agent.load()
        return bool(load and load.headed)

    def _begin(self, order: AgentOrder) -> None:
        try:
            self._agent, self._trouble = self._start(_at_home(order)), ""
        except OSError as error:
            self._trouble = f"no agent starts: {error}"
            self._backoff.failed()

    def _facts(self, trouble: str) -> AgentFacts:
        return AgentFacts(memory=self._memory, draining=self._draining, trouble=trouble)

    def drain(self, pool: str, seconds: float) -> None:
        """Have the server's agent end when its calls are answered, so many seconds from now at most."""
        with self._lock:
            if self._order is not None and self._order.settings.pool == pool:
                self._draining = True
                if self._agent is not None:
                    self._agent.drain(seconds)

    def _end(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None


def _at_home(order: AgentOrder) -> AgentOrder:
    """The order with what is known on the node alone: a worker is a child of Ray's daemon."""
    return msgspec.structs.replace(order, raylet=os.getppid())
