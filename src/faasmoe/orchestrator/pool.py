"""The pool of functions that orchestrators share. Apart from them, so that whoever owns the pool needs no torch."""

from __future__ import annotations

from dataclasses import replace

from faasmoe.experts import HANDLER
from faasmoe.platforms.local.options import LocalOptions
from faasmoe.platforms.local.platform import LocalPlatform


def local_platform(options: LocalOptions | None = None) -> LocalPlatform:
    """The embedded platform, able to run expert functions."""
    return LocalPlatform(replace(options or LocalOptions(), preload=(HANDLER.partition(":")[0],)))
