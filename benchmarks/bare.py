"""What the machine takes for a round trip between processes over unix sockets, with nothing else done."""

from __future__ import annotations

import os
import socket
import statistics
import time


def round_trip_us(processes: int, times: int) -> float:
    """Median microseconds to send 64 bytes to each of some processes and hear from all of them."""
    ends, pids = [], []
    for _ in range(processes):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for end in (*ends, ours):
                end.close()
            while data := theirs.recv(64):
                theirs.send(data)
            os._exit(0)
        theirs.close()
        ends.append(ours)
        pids.append(pid)
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        for end in ends:
            end.send(bytes(64))
        for end in ends:
            end.recv(64)
        durations.append((time.perf_counter() - start) * 1e6)
    for end, pid in zip(ends, pids, strict=True):
        end.close()
        os.waitpid(pid, 0)
    return statistics.median(durations)
