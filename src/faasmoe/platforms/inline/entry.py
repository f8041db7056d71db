"""The inline platform's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faasmoe.platforms.inline.platform import NAME, InlinePlatform
from faasmoe.platforms.registry import PlatformEntry


@dataclass(frozen=True, slots=True)
class InlineOptions:
    """The platform has no options: idle functions are not stopped, and memory has no budget."""


def _start(_: InlineOptions, preload: Sequence[str]) -> InlinePlatform:
    """Nothing is preloaded: this process imports modules when it loads the first function."""
    del preload
    return InlinePlatform()


ENTRY = PlatformEntry(name=NAME, options=InlineOptions, start=_start)
