"""Platforms that do not start."""

from __future__ import annotations

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms import registry


def refused(platform: str, match: str | None = None, **given: object) -> str:
    """Start a platform in vain, and return what is told. If it does start, it is closed before that fails the test."""
    with pytest.raises(PlatformError, match=match) as told, registry.start(platform, (), **given):
        pass
    return str(told.value)
