"""The process of the zygote: what it runs, and with which environment."""

from __future__ import annotations

from collections.abc import Callable

from faasmoe.util.forkserver.server_process import ServerProcess, spawn
from faasmoe.util.processes import ROLE

_MODULE = "faasmoe.platforms.local.instance.zygote"
_ENVIRONMENT = {
    ROLE: "zygote",
    "OMP_NUM_THREADS": "1",  # compute threads of an instance; parallelism comes from instances
    "MALLOC_ARENA_MAX": "1",  # what is freed is found again
    "MALLOC_MMAP_THRESHOLD_": f"{128 << 10}",  # what a prompt needs goes back to the kernel; by default glibc's
    "MALLOC_TRIM_THRESHOLD_": f"{128 << 10}",  # thresholds grow with what is freed
}


def start_zygote() -> ServerProcess:
    """Start a zygote. Raises `OSError`."""
    return spawn(_MODULE, _ENVIRONMENT)


def first_then_new(first: ServerProcess | None) -> Callable[[], ServerProcess]:
    """`start_zygote`, but the first call gives `first`, if there is one."""
    early = [] if first is None else [first]
    return lambda: early.pop() if early else start_zygote()
