"""Progress on the terminal: lines for the stages of a start, and a bar for files that take a while to write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn


class Stages:
    """Prints a line for each stage, with the seconds since this was made. Lines, since log lines come in between.

    Of commands that print a result on standard output, it is for people only: `console` is that of standard error then.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this was made."""
        return time.monotonic() - self._began

    def begin(self, text: str) -> None:
        """Print the line of a stage that begins now."""
        if not self._console.stderr or self._console.is_terminal:
            self._console.print(f"{self.seconds:5.1f} s  {text}", markup=False)


@contextmanager
def writing(what: str, nbytes: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error. Yields a function that takes the number of bytes just written."""
    columns = (TextColumn(f"writing {what}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=nbytes)
        yield lambda done: progress.advance(task, done)
