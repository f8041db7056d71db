"""An actor's hold on the agent that it has started."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TypeVar

from faasmoe.platforms.ray.messages import (
    LARGEST_PACKET,
    AgentLoad,
    AgentOrder,
    AgentReady,
    AskLoad,
    Certificate,
    Drain,
    RayMessage,
    from_packet,
    to_packet,
)
from faasmoe.util import logs, processes
from faasmoe.util.closeable import Closeable

_AGENT = "faasmoe.platforms.ray.actor.agent"
_START_SECONDS, _ANSWER_SECONDS = 60.0, 15.0

_M = TypeVar("_M", bound=RayMessage)


class AgentProcess(Closeable):
    """For one thread. The agent ends when this, or the process that has it, ends."""

    request = b""  # that the agent has made for a certificate
    trouble = ""  # why it has ended

    def __init__(self, order: AgentOrder) -> None:
        """Returns when the agent runs. Raises `OSError` if it does not start, or tells why."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = processes.start(_AGENT, stdin=theirs.fileno(), more={logs.VARIABLE: order.settings.log})
        try:
            process.wait()  # it leaves its parent at once
            self._channel.send(to_packet(order))
            self._answer(AgentReady, _START_SECONDS)
        except BaseException:
            self.close()
            raise

    def certify(self, certificate: Certificate) -> None:
        """Give the agent its certificate, if it has asked for that one."""
        if certificate.request == self.request:
            self.request = b""
            with suppress(OSError):  # it has ended
                self._channel.send(to_packet(certificate))

    def load(self) -> AgentLoad | None:
        """What the agent has to do. None: it has ended, or does not answer."""
        try:
            self._channel.send(to_packet(AskLoad()))
            load = self._answer(AgentLoad, _ANSWER_SECONDS)
        except OSError as error:
            self.trouble = str(error)
            return None
        self.request = load.request
        return load

    def drain(self, seconds: float) -> None:
        """Have the agent end when its calls are answered, so many seconds from now at most. Does not wait."""
        with suppress(OSError):  # it has ended
            self._channel.send(to_packet(Drain(seconds)))

    def _answer(self, wanted: type[_M], seconds: float) -> _M:
        """The agent's next message. Raises `OSError`."""
        self._channel.settimeout(seconds)
        packet = self._channel.recv(LARGEST_PACKET)
        if not packet:
            raise OSError("it has ended; Ray's log of its actor tells more")
        answer = from_packet(packet)
        if isinstance(answer, AgentReady) and answer.error:
            raise OSError(answer.error)
        if not isinstance(answer, wanted):
            raise OSError(f"it has sent {type(answer).__name__} instead of {wanted.__name__}")
        return answer

    def close(self) -> None:
        """Have the agent end at once. May be called twice."""
        self._channel.close()
