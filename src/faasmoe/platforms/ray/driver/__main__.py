"""The driver's process: holds the connection to Ray, whose threads and failures are none of the server's.

python -m faasmoe.platforms.ray.driver
"""

from __future__ import annotations

import logging
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from faasmoe.errors import OptionError, brief
from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.identity import Role
from faasmoe.platforms.ray.driver.driver import Certify, Driver
from faasmoe.platforms.ray.driver.scaling import Scaling
from faasmoe.platforms.ray.messages import (
    LARGEST_PACKET,
    Certificate,
    DriverOrder,
    NodesReport,
    from_packet,
    to_packet,
    waking_address,
)
from faasmoe.util import logs
from faasmoe.util.processes import leave_signals_to_parent

if TYPE_CHECKING:
    from faasmoe.platforms.ray.driver.ray_cluster import RayCluster

log = logging.getLogger(__name__)

_TICK = 1.0  # seconds
_SHORT_TICK = 0.2  # while agents start
_CLOSE_SECONDS = 3  # for Ray to end the agents


def main() -> None:
    """Serve until standard input closes."""
    leave_signals_to_parent()
    logs.inherit("ray driver")
    channel = socket.socket(fileno=sys.stdin.fileno())
    order = from_packet(channel.recv(LARGEST_PACKET))
    if not isinstance(order, DriverOrder):
        sys.exit(1)  # the server has ended already
    waking = _listen(waking_address(order.agents.pool))
    try:
        cluster = _connect(order)
    except OptionError as error:
        channel.send(to_packet(NodesReport(fatal=str(error))))
        return
    leave_signals_to_parent()  # Ray has taken SIGTERM
    driver = Driver(order, cluster, Scaling(order.limits, time.monotonic), _certifier(Path(order.cluster_folder)))
    try:
        _run(driver, channel, waking)
    except cluster.failures as error:  # the next driver finds the actors
        log.warning("Ray does not answer: %s", brief(error))
        sys.exit(1)
    signal.alarm(_CLOSE_SECONDS)  # ends this process if Ray's head does not answer
    cluster.close()


def _listen(address: str) -> socket.socket:
    """Where clients send a packet that find no node."""
    waking = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    waking.bind(address)
    return waking


def _certifier(folder: Path) -> Certify:
    """A node's key never leaves it, so that nothing secret goes through Ray."""
    from faasmoe.platforms.cluster.authority.certificates import requested  # noqa: PLC0415 (needs the extra)

    authority = Authority(folder)

    def certify(request: bytes, name: str) -> Certificate:
        certificate = authority.certify(requested(request), Role.NODE, name)
        return Certificate(request=request, certificate=certificate, authority=authority.certificate)

    return certify


def _connect(order: DriverOrder) -> RayCluster:
    """Raises `OptionError`."""
    try:
        from faasmoe.platforms.ray.driver.ray_cluster import RayCluster  # noqa: PLC0415 - it imports Ray

        return RayCluster.connect(order.address, order.agents.namespace, order.agents.pool)
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise OptionError("Ray is not installed here; it comes with the extra `ray` of this package") from error
    except (ConnectionError, RuntimeError, ValueError) as error:  # what Ray raises
        raise OptionError(f"address {order.address}: {brief(error)}") from error


def _run(driver: Driver, channel: socket.socket, waking: socket.socket) -> None:
    """Returns when the server has closed the channel."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while not poll.poll((_SHORT_TICK if driver.waits else _TICK) * 1000):
        report = driver.tick(_packets(waking) > 0)
        try:
            channel.send(to_packet(report))
        except OSError:
            return


def _packets(waking: socket.socket) -> int:
    """How many packets have come since."""
    count = 0
    try:
        while True:
            waking.recv(1)
            count += 1
    except BlockingIOError:
        return count


if __name__ == "__main__":
    main()
