"""Hands packets on between two network interfaces, late or not at all: `forwarder.py NEAR FAR DELAY LOSS`.

It needs no module of the kernel, as netem would be. `DELAY` is in seconds, `LOSS` a share of packets.
"""

from __future__ import annotations

import heapq
import itertools
import random
import select
import socket
import sys
import time

_ALL = 3  # ETH_P_ALL of linux/if_ether.h
_PACKET, _OFFLOADS = 263, 15  # SOL_PACKET of linux/socket.h, PACKET_VNET_HDR of linux/if_packet.h
_FORCED = 33  # SO_RCVBUFFORCE of asm-generic/socket.h
_BUFFER = 8 << 20  # bytes
_LONGEST = 1 << 17  # bytes, of a packet whose segments are not cut yet


def forward(near: str, far: str, delay: float, loss: float) -> None:
    """Hand packets on until this process ends."""
    one, two = _interface(near), _interface(far)
    ends = {one.fileno(): (one, two), two.fileno(): (two, one)}
    poll = select.poll()
    for fd in ends:
        poll.register(fd, select.POLLIN)
    late: list[tuple[float, int, socket.socket, bytes]] = []  # packets on their way, the next one first
    order, chance = itertools.count(), random.Random(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        left = max(0.0, late[0][0] - time.monotonic()) * 1000 if late else None
        for fd, _ in poll.poll(left):
            here, there = ends[fd]
            packet, where = here.recvfrom(_LONGEST)
            if where[2] != socket.PACKET_OUTGOING and chance.random() >= loss:
                heapq.heappush(late, (time.monotonic() + delay, next(order), there, packet))
        while late and late[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(late)
            end.send(packet)


def _interface(name: str) -> socket.socket:
    """All packets of an interface, each behind a header by which the kernel leaves checksums and segments for later."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    end.setsockopt(_PACKET, _OFFLOADS, 1)
    end.setsockopt(socket.SOL_SOCKET, _FORCED, _BUFFER)
    end.bind((name, 0))
    return end


if __name__ == "__main__":
    forward(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
