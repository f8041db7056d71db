"""A pool of the embedded platform, for benchmarks that look at its processes."""

from __future__ import annotations

from faasmoe.experts import PRELOAD
from faasmoe.platforms.local.platform import LocalPlatform
from faasmoe.platforms.registry import start


def local_pool(**options: object) -> LocalPlatform:
    """A new one, with the platform's options."""
    platform = start("local", PRELOAD, **options)
    assert isinstance(platform, LocalPlatform)
    return platform
