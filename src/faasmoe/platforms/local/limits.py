"""Checks that processes may open as many files, and start as many others, as a pool will need."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

from faasmoe.errors import OptionError
from faasmoe.platforms.base import Demand
from faasmoe.util.machine import ControlGroups, cores

log = logging.getLogger(__name__)

# What an instance takes beside its weights: 4 MB of its own, and room for the rows it computes on, 64 of 2048 numbers.
INSTANCE_BYTES = 6 << 20
_BESIDE, _LEAST_BESIDE = 64, 32  # files that a process has open for other things, with room to spare and without
_IN_DAEMON = 2  # for each instance: a socket, and the page of its figures
_OTHER_TASKS = 64  # threads and processes beside instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Open files and tasks (processes and threads) of a server when all of its functions run."""

    functions: int
    requests: int
    files: int  # in the process that has most open
    least_files: int  # without which nothing can be served: mapped tensors, and one function
    tasks: int  # an instance has a thread for each connection

    @classmethod
    def of(cls, demand: Demand, parallelism: int) -> Needs:
        """The needs of `demand` on a machine that computes `parallelism` calls side by side."""
        connections = min(demand.calls_at_once, parallelism)  # to one function, of each client
        client = demand.client_tensors + demand.functions * connections
        files = max(demand.functions * _IN_DAEMON, client, demand.function_tensors, demand.requests)
        return cls(
            functions=demand.functions,
            requests=demand.requests,
            files=_BESIDE + files,
            least_files=_LEAST_BESIDE + max(demand.client_tensors + 1, demand.function_tensors),
            tasks=_OTHER_TASKS + demand.functions * (1 + connections * demand.clients),
        )


def check(demand: Demand) -> None:
    """Warn of limits of this process that are too low for `demand`. Raises `OptionError` if nothing can be served."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for line in shortcomings(Needs.of(demand, cores()), files, ControlGroups.own().tasks_left()):
        log.warning("%s", line)


def shortcomings(needs: Needs, files: int, tasks: int | None) -> list[str]:
    """Warnings if a process may have `files` open, and `tasks` more may be started (None: any number).

    Raises `OptionError` if too few files may be open to serve anything.
    """
    found = []
    if files == resource.RLIM_INFINITY:
        files = needs.files
    if files < needs.least_files:
        raise OptionError(
            f"ulimit -Hn is {files}: this model needs {needs.least_files} open files, and {needs.files} when all "
            f"functions run; {_how_files(needs)}"
        )
    if files < needs.files:
        requests = f" and {needs.requests} requests wait" if needs.requests else ""
        found.append(
            f"ulimit -Hn is {files}, but {needs.files} open files are needed when all {needs.functions} functions "
            f"run{requests}: calls and connections beyond the limit fail; {_how_files(needs)}"
        )
    if tasks is not None and tasks < needs.tasks:
        found.append(
            f"the control group has room for {tasks} more processes and threads (pids.max), but {needs.tasks} are "
            f"needed when all {needs.functions} functions run; set TasksMax={needs.tasks} in a systemd unit, "
            f"--pids-limit {needs.tasks} for a container, or a larger --block-size, which makes fewer functions"
        )
    return found


def _how_files(needs: Needs) -> str:
    return (
        f"raise it to {needs.files}, by ulimit -n as root, LimitNOFILE={needs.files} in a systemd unit or "
        f"--ulimit nofile={needs.files} for a container, or make fewer functions by a larger --block-size"
    )
