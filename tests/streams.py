"""Streams of server-sent events, as a client reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def data_of(lines: Iterable[str]) -> Iterator[str]:
    """What events carry. Comments, which a server sends while its client waits, are none."""
    for line in lines:
        if line and not line.startswith(":"):
            assert line.startswith("data: "), line
            yield line.removeprefix("data: ")
