"""What the machine takes for a round trip between processes over unix sockets, with nothing else done.

    python -m benchmarks.bare

prints it for one process on the same core and on another one: the difference is what it takes to wake a core, and to
be told (`platforms.local.client.placement.WAKE`).
"""

from __future__ import annotations

import os
import socket
import statistics
import time


def round_trip_us(processes: int, times: int, core: int | None = None, pause: float = 0.0) -> float:
    """Median microseconds to send 64 bytes to each of some processes and hear from all of them.

    `core`: where they run; None: as the kernel likes. `pause`: seconds of work between round trips.
    """
    ends: list[socket.socket] = []
    pids: list[int] = []
    for _ in range(processes):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            if core is not None:
                os.sched_setaffinity(0, [core])
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
        begin = time.perf_counter() + pause
        while (start := time.perf_counter()) < begin:
            pass
        for end in ends:
            end.send(bytes(64))
        for end in ends:
            end.recv(64)
        durations.append((time.perf_counter() - start) * 1e6)
    for end, pid in zip(ends, pids, strict=True):
        end.close()
        os.waitpid(pid, 0)
    return statistics.median(durations)


def main() -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    for core in cores[:2]:
        where = "the same core" if core == cores[0] else "another core"
        print(f"{where}: {round_trip_us(1, 5000, core, 50e-6):.0f} us")


if __name__ == "__main__":
    main()
