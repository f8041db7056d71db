"""Whether processes may open as many files, and start as many others, as a pool will need: told at its start."""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass

from faasmoe.errors import OptionError
from faasmoe.util.machine import ControlGroups

log = logging.getLogger(__name__)

_BESIDE, _LEAST_BESIDE = 64, 32  # files that a process has open for other things, with room to spare and without
_IN_DAEMON = 2  # for each instance: a socket, and the page of its figures
_OTHER_TASKS = 64  # threads and processes beside instances


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the pool.

    `functions` are deployed, each called over `connections` at a time by each of `clients` orchestrators. An
    orchestrator maps `tensors` of the checkpoint, an instance `its_tensors`, each over a descriptor of its own.
    `requests` connections of HTTP clients are open.
    """

    functions: int
    connections: int
    tensors: int
    its_tensors: int
    clients: int = 1
    requests: int = 0

    @property
    def files(self) -> int:
        """That are open in the process which has most, when all functions run."""
        orchestrator = self.tensors + self.functions * self.connections
        return _BESIDE + max(self.functions * _IN_DAEMON, orchestrator, self.its_tensors, self.requests)

    @property
    def least_files(self) -> int:
        """Without which nothing can be served: what a process has mapped, and one function."""
        return _LEAST_BESIDE + max(self.tensors + 1, self.its_tensors)

    @property
    def tasks(self) -> int:
        """Processes and threads when all functions run: an instance has a thread for each connection."""
        return _OTHER_TASKS + self.functions * (1 + self.connections * self.clients)


def tell(demand: Demand) -> None:
    """Warn of limits of this process that are too low for `demand`. Raises `OptionError` if nothing can be served."""
    for line in shortcomings(
        demand, resource.getrlimit(resource.RLIMIT_NOFILE)[1], ControlGroups.own().tasks_left()
    ):
        log.warning("%s", line)


def shortcomings(demand: Demand, files: int, tasks: int | None) -> list[str]:
    """What to warn of if a process may have `files` open, and `tasks` more may be started (None: any number).

    Raises `OptionError` if too few files may be open to serve anything.
    """
    found = []
    if files == resource.RLIM_INFINITY:
        files = demand.files
    if files < demand.least_files:
        raise OptionError(
            f"ulimit -Hn is {files}: this model needs {demand.least_files} open files, and {demand.files} when all "
            f"functions run; {_how_files(demand)}"
        )
    if files < demand.files:
        requests = f" and {demand.requests} requests wait" if demand.requests else ""
        found.append(
            f"ulimit -Hn is {files}, but {demand.files} open files are needed when all {demand.functions} functions "
            f"run{requests}: calls and connections beyond the limit fail; {_how_files(demand)}"
        )
    if tasks is not None and tasks < demand.tasks:
        found.append(
            f"the control group has room for {tasks} more processes and threads (pids.max), but {demand.tasks} are "
            f"needed when all {demand.functions} functions run; set TasksMax={demand.tasks} in a systemd unit, "
            f"--pids-limit {demand.tasks} for a container, or a larger --block-size, which makes fewer functions"
        )
    return found


def _how_files(demand: Demand) -> str:
    return (
        f"raise it to {demand.files}, by ulimit -n as root, LimitNOFILE={demand.files} in a systemd unit or "
        f"--ulimit nofile={demand.files} for a container, or make fewer functions by a larger --block-size"
    )
