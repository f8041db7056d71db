"""The process of an agent that Ray's actor has started.

python -m faasmoe.platforms.ray.actor.agent

It leaves its parent at once: a worker of Ray kills its children when it ends, also when it ends because Ray itself
fails on the node or its head is gone for long. Then the agent goes on, as long as a server has it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from faasmoe.errors import ServingError, UserError
from faasmoe.platforms.cluster.addresses import NodeAddress
from faasmoe.platforms.cluster.authority import authority as authorities
from faasmoe.platforms.cluster.authority.identity import ClusterIdentity
from faasmoe.platforms.cluster.protocol.connection import address_of, bound
from faasmoe.platforms.cluster.weights.options import WeightsOptions
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.ray.messages import (
    LARGEST_PACKET,
    AgentLoad,
    AgentOrder,
    AgentReady,
    AskLoad,
    Certificate,
    Drain,
    agent_address,
    from_packet,
    to_packet,
)
from faasmoe.util import logs
from faasmoe.util.folders.run_folder import RunFolder
from faasmoe.util.processes import leave_signals_to_parent

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.agent.agent import NodeAgent

_ALONE_TICK = 1.0  # seconds
_FAIL_SECONDS = 10.0  # between the ends of an actor and of Ray's daemon if Ray fails: neither finds its head
_TAKE_SECONDS = 5.0  # for another agent to end


def main() -> None:
    """Run until standard input closes or the agent has drained."""
    if os.fork():
        os._exit(0)
    os.setsid()
    leave_signals_to_parent()
    os.umask(0o077)
    logs.inherit("node")
    channel = socket.socket(fileno=sys.stdin.fileno())
    order = from_packet(channel.recv(LARGEST_PACKET))
    if not isinstance(order, AgentOrder):
        sys.exit(1)  # the actor has ended already
    try:
        with take_place(agent_address(order.raylet, order.settings.namespace)) as successor:
            _run(order, channel, successor, _watch(order.raylet))
    except (OSError, UserError, ServingError) as error:
        _tell(channel, AgentReady(error=str(error)))


def take_place(address: str) -> socket.socket:
    """End the agent that an actor before this one has left, and listen for the next one. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + _TAKE_SECONDS
    try:
        while not _is_bound(listener, address):
            _end_other(address, deadline)
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def _is_bound(listener: socket.socket, address: str) -> bool:
    try:
        listener.bind(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _end_other(address: str, deadline: float) -> None:
    """Connect to the agent at `address`, which ends it, and wait until the connection ends with it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        if (left := deadline - time.monotonic()) > 0:
            other.settimeout(left)
            with suppress(ConnectionError, TimeoutError):  # it has just ended, or does so now, or does not
                other.connect(address)
                other.recv(1)
            return
    raise OSError("the agent that was there before does not end")


def _watch(raylet: int) -> int:
    """A descriptor that is readable when Ray's daemon has ended."""
    try:
        return os.pidfd_open(raylet)
    except ProcessLookupError:  # it has ended, and the actor with it
        sys.exit(1)


def _run(order: AgentOrder, channel: socket.socket, successor: socket.socket, raylet: int) -> None:
    """Raises `OSError`, `UserError`, `ServingError`."""
    from faasmoe.platforms.cluster.agent.agent import NodeAgent  # noqa: PLC0415 - not in the process that forks

    authorities.require_extra()
    options = replace(LocalOptions.from_json(order.settings.local_options), memory_budget=order.memory)
    with RunFolder() as folder, bound(NodeAddress(order.host, 0), "the node's address") as listener:
        identity = ClusterIdentity(folder.path / "identity")
        with NodeAgent(order.name, listener, identity, options, order.settings.preload, WeightsOptions()) as agent:
            _tell(channel, AgentReady())
            _Service(agent, identity, channel, listener).run(successor, raylet)


class _Service:
    """Answers the actor."""

    def __init__(
        self, agent: NodeAgent, identity: ClusterIdentity, channel: socket.socket, listener: socket.socket
    ) -> None:
        self._agent = agent
        self._identity = identity
        self._channel = channel
        self._listener = listener
        self._port = 0  # where the agent listens

    def run(self, successor: socket.socket, raylet: int) -> None:
        """Returns when the actor is gone, the agent has drained, or another one comes."""
        poll = select.poll()
        drained, at_end = os.pipe()
        for each in (self._channel, drained, successor):
            poll.register(each, select.POLLIN)
        while not {drained, successor.fileno()} & set(dict(poll.poll())):
            packet = self._channel.recv(LARGEST_PACKET)
            if not packet:
                self._serve_alone(successor, raylet)
                return
            match from_packet(packet):
                case AskLoad():
                    _tell(self._channel, self._load())
                case Certificate() as given:
                    self._take(given)
                case Drain(seconds=seconds):
                    threading.Thread(target=self._drain, args=(seconds, at_end), daemon=True).start()

    def _take(self, given: Certificate) -> None:
        """Raises `OptionError`."""
        self._identity.take(given.certificate, given.authority)
        if not self._port:
            self._agent.start()
            self._port = address_of(self._listener).port

    def _load(self) -> AgentLoad:
        report = self._agent.report()
        pool = report.pool
        request = b""
        if not self._identity.exists or authorities.is_due(self._identity):
            from faasmoe.platforms.cluster.authority import certificates  # noqa: PLC0415 (needs the extra)

            request = certificates.signing_request(self._identity.key())
        return AgentLoad(
            port=self._port,
            request=request,
            calls=report.traffic.calls,
            instances=sum(len(function.instances) for function in pool.functions),
            waiting=pool.waiting,
            memory_used=pool.memory_used,
            claimed=self._agent.claimed,
            headed=self._agent.headed,
        )

    def _drain(self, seconds: float, at_end: int) -> None:
        self._agent.drain(seconds)
        os.close(at_end)

    def _serve_alone(self, successor: socket.socket, raylet: int) -> None:
        """The actor is gone. If Ray is gone from this node, too, serve for as long as a server has the agent."""
        if raylet not in select.select([raylet, successor.fileno()], [], [], _FAIL_SECONDS)[0]:
            return
        while self._agent.claimed and not select.select([successor], [], [], _ALONE_TICK)[0]:
            pass


def _tell(channel: socket.socket, message: AgentReady | AgentLoad) -> None:
    with suppress(OSError):  # the actor is gone, which is seen next
        channel.send(to_packet(message))


if __name__ == "__main__":
    main()
