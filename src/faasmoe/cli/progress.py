"""A bar for files that take a while to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


@contextmanager
def writing(what: str, nbytes: int) -> Iterator[Callable[[int], None]]:
    """Shown on standard error while it is entered. Yields what is to be told how many bytes have been written."""
    columns = (TextColumn(f"writing {what}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=nbytes)
        yield lambda done: progress.advance(task, done)
