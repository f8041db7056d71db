"""The processes of a server, found by what they run. Any of them may end while it is looked at."""

from __future__ import annotations

from contextlib import suppress

import psutil

from faasmoe.platforms.local.platform import LocalPlatform


def command(process: psutil.Process) -> list[str]:
    """Its command line, empty if it has ended meanwhile."""
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def child(owner: int, module: str) -> psutil.Process | None:
    """The child of `owner` that runs `module`, None if there is none now."""
    return next((child for child in psutil.Process(owner).children() if module in command(child)), None)


def daemon(owner: int) -> psutil.Process | None:
    """The daemon of the pool that `owner` has started."""
    return child(owner, "faasmoe.platforms.local.daemon")


def of_pool(platform: LocalPlatform) -> list[int]:
    """Process ids of the daemon, the zygote, and all workers and instances of a pool. None while the daemon rests."""
    platform.status()  # waits for a daemon that is started again
    for process in psutil.process_iter():
        if {"faasmoe.platforms.local.daemon", str(platform.folder)} <= set(command(process)):
            with suppress(psutil.NoSuchProcess):
                return [process.pid, *(child.pid for child in process.children(recursive=True))]
    return []


def template(owner: int) -> psutil.Process | None:
    """What forks the orchestrators of `owner`."""
    return child(owner, "faasmoe.orchestrator.template")


def orchestrators(owner: int) -> list[int]:
    """Process ids of the orchestrators of `owner`, in the order of their starts."""
    forking = template(owner)
    with suppress(psutil.NoSuchProcess):
        children = forking.children() if forking else []
        return [child.pid for child in sorted(children, key=psutil.Process.create_time)]
    return []
