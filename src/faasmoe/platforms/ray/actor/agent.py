"""The process of an agent that Ray's actor has started.

python -m faasmoe.platforms.ray.actor.agent

It leaves its parent at once: a worker of Ray kills its children when it ends, also when it ends because Ray itself
fails on the node or its head is gone for long. Then the agent goes on, as long as a server has it.
"""

from __future__ import annotations

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
from faasmoe.platforms.cluster.addresses import NodeAddress, read_address
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.ray.messages import (
    LARGEST_PACKET,
    AgentLoad,
    AgentOrder,
    AgentStarted,
    AskLoad,
    Drain,
    from_packet,
    to_packet,
)
from faasmoe.util import logs
from faasmoe.util.processes import leave_signals_to_parent

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.agent.agent import NodeAgent

_ALONE_TICK = 1.0  # seconds


def main() -> None:
    """Run until standard input closes or the agent has drained."""
    if os.fork():
        os._exit(0)
    os.setsid()
    leave_signals_to_parent()
    logs.inherit("node")
    os.umask(0o077)
    channel = socket.socket(fileno=sys.stdin.fileno())
    order = from_packet(channel.recv(LARGEST_PACKET))
    if not isinstance(order, AgentOrder):
        sys.exit(1)  # the actor has ended already
    raylet = _watch(order.raylet)
    from faasmoe.platforms.cluster.agent.agent import NodeAgent  # noqa: PLC0415 - not in the process that forks

    try:
        options = replace(LocalOptions.from_json(order.settings.local_options), memory_budget=order.memory)
        with (
            _bind(order.host) as listener,
            NodeAgent(order.name, listener, order.settings.secret, options, order.settings.preload) as agent,
        ):
            agent.start()
            _tell(channel, AgentStarted(port=listener.getsockname()[1]))
            _serve(agent, channel, raylet)
    except (OSError, UserError, ServingError) as error:
        _tell(channel, AgentStarted(error=str(error)))


def _watch(raylet: int) -> int:
    """A descriptor that is readable when Ray's daemon has ended."""
    try:
        return os.pidfd_open(raylet)
    except ProcessLookupError:  # it has ended, and the actor with it
        sys.exit(1)


def _bind(host: str) -> socket.socket:
    """Raises `OptionError`, `OSError`."""
    address = read_address(str(NodeAddress(host, 0)))
    return socket.create_server(
        (address.host, 0), family=socket.AF_INET6 if ":" in address.host else socket.AF_INET
    )


def _serve(agent: NodeAgent, channel: socket.socket, raylet: int) -> None:
    """Answer the actor, until it is gone or the agent has drained."""
    poll = select.poll()
    drained, at_end = os.pipe()
    poll.register(channel, select.POLLIN)
    poll.register(drained, select.POLLIN)
    while drained not in dict(poll.poll()):
        packet = channel.recv(LARGEST_PACKET)
        if not packet:  # the actor is gone
            if _is_readable(raylet):
                _serve_alone(agent)
            return
        match from_packet(packet):
            case AskLoad():
                _tell(channel, _load(agent))
            case Drain(seconds):
                threading.Thread(target=_drain, args=(agent, seconds, at_end), daemon=True).start()


def _drain(agent: NodeAgent, seconds: float, at_end: int) -> None:
    agent.drain(seconds)
    os.close(at_end)


def _serve_alone(agent: NodeAgent) -> None:
    """Ray is gone from this node, and the server has the agent still: go on for as long as that."""
    while agent.claimed:
        time.sleep(_ALONE_TICK)


def _is_readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])


def _load(agent: NodeAgent) -> AgentLoad:
    report = agent.report()
    pool = report.pool
    return AgentLoad(
        calls=report.traffic.calls,
        instances=sum(len(function.instances) for function in pool.functions),
        waiting=pool.waiting,
        memory_used=pool.memory_used,
        claimed=agent.claimed,
    )


def _tell(channel: socket.socket, message: AgentStarted | AgentLoad) -> None:
    with suppress(OSError):  # the actor is gone, which is seen next
        channel.send(to_packet(message))


if __name__ == "__main__":
    main()
