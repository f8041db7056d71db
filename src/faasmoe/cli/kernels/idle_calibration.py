"""Measures kernels while a server has nothing to do, so that its next start knows which are the fastest.

Not at a start: that would take seconds, while the imports of other processes take all cores.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable

from faasmoe.cli.kernels import cache
from faasmoe.experts.kernels.choice import VARIABLE
from faasmoe.util import processes

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0  # without a request before it measures
_LOOK_SECONDS = 0.1  # between looks for requests


async def measure_when_idle(busy: Callable[[], bool], idle_seconds: float = IDLE_SECONDS) -> None:
    """Measure kernels when the server idles, unless that was done before or the user has named an instruction set.

    `busy` says whether the server runs requests. A request ends a measurement, which starts again after the next idle
    minute.
    """
    if VARIABLE in os.environ or cache.remembered():
        return
    measured = False
    while not measured:
        await _idle(busy, idle_seconds)
        measured = await _measured(busy)


async def _idle(busy: Callable[[], bool], seconds: float) -> None:
    """Returns when there has been no request for so long."""
    clock = asyncio.get_running_loop().time
    since = clock()
    while clock() - since < seconds:
        await asyncio.sleep(min(1.0, seconds))
        if busy():
            since = clock()


async def _measured(busy: Callable[[], bool]) -> bool:
    """Measure in another process. False if a request has ended it. A failure is logged, and not tried again."""
    try:
        child = processes.start("faasmoe.cli.kernels.calibration", [str(os.getpid())])
    except OSError as error:
        log.warning("kernels are not measured, no process can be started: %s", error)
        return True
    try:
        while child.poll() is None:
            if busy():
                return False
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        _end(child)
    if child.returncode:
        log.warning("kernels are not measured, the process ended with status %d", child.returncode)
    else:
        log.info("kernels were measured while nothing ran; the next start uses the fastest (faasmoe kernels)")
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
