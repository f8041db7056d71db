"""The inline platform's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faasmoe.platforms.inline.platform import NAME, InlinePlatform
from faasmoe.platforms.registry import PlatformEntry


@dataclass(frozen=True, slots=True)
class InlineOptions:
    """The platform has no options: nothing is stopped when it idles, and there is no budget."""


def _start(_: InlineOptions, preload: Sequence[str]) -> InlinePlatform:
    """Functions are loaded in this process, which imports what they need when the first is loaded."""
    del preload
    return InlinePlatform()


ENTRY = PlatformEntry(name=NAME, options=InlineOptions, start=_start)
