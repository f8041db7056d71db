"""The embedded platform's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from faasmoe.platforms.base import Overheads
from faasmoe.platforms.local.client.control import wake
from faasmoe.platforms.local.limits import INSTANCE_BYTES, check
from faasmoe.platforms.local.options import DEFAULT_ZYGOTE_KEEP_ALIVE, LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.local.protocol.messages import NAME, SOCKET
from faasmoe.platforms.registry import PlatformEntry
from faasmoe.util.folders import run_folder


def _start(options: LocalOptions, preload: Sequence[str]) -> LocalPlatform:
    return LocalPlatform(replace(options, preload=tuple(preload)))


def _connect(address: str) -> LocalPlatform:
    return LocalPlatform(folder=Path(address))


def pools() -> list[Path]:
    """Run folders of this user's pools. Raises `OptionError` if the parent of run folders is unsafe."""
    return [folder for folder in run_folder.live() if (folder / SOCKET).exists()]


ENTRY = PlatformEntry(
    name=NAME,
    options=LocalOptions,
    start=_start,
    connect=_connect,
    process=lambda instance: int(instance.id),
    running=lambda _: list(map(str, pools())),
    wake=lambda address: wake(Path(address)),
    check=check,
    overheads=Overheads(instance_bytes=INSTANCE_BYTES, idle_seconds=DEFAULT_ZYGOTE_KEEP_ALIVE),
)
