"""Hibernation: a daemon that stops idle leaves the state of its pool in a file, for clients and the next daemon."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from faasmoe.platforms.base import PoolStatus, PoolTotals
from faasmoe.platforms.local.daemon.pool import Pool
from faasmoe.platforms.local.protocol import messages

log = logging.getLogger(__name__)

_FILE = "rest.json"


def leave(folder: Path, pool: Pool, now: int) -> None:
    """Write the counts of a pool without instances. `now` is that of `time.monotonic_ns`. Raises `OSError`."""
    pool.own = 0  # the platform has no processes any more
    functions = {
        name: {"counts": function.counts, "latency": function.latency, "last_end": function.last_end}
        for name, function in pool.functions.items()
    }
    books = {"status": messages.plain(pool.status(now)), "functions": functions}
    draft = folder / f"{_FILE}.new"
    draft.write_text(json.dumps(books))
    draft.rename(folder / _FILE)


def status(folder: Path) -> PoolStatus | None:
    """Return the status of a pool whose daemon hibernates; None if there is a daemon to ask."""
    try:
        books: dict[str, dict[str, Any]] = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return None
    pool: PoolStatus = messages.read(books["status"], PoolStatus)
    return pool


def take_up(folder: Path, pool: Pool) -> None:
    """Restore the counts that the last daemon has left, if any. Functions must be deployed already."""
    try:
        books = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return
    except ValueError:
        log.error("%s of the platform's run folder is damaged: counting begins anew", _FILE)
        (folder / _FILE).unlink()
        return
    for name, left in books["functions"].items():
        function = pool.functions[name]
        function.counts = Counter(left["counts"])
        function.latency, function.last_end = left["latency"], left["last_end"]
    phases = books["status"]["cold_start_phases"]
    pool.phases = {phase: (count, seconds) for phase, (count, seconds) in phases.items()}
    pool.ended = PoolTotals(**books["status"]["totals"])
    (folder / _FILE).unlink()  # from now on clients ask this daemon
