"""Lines on the terminal for the stages of a start."""

from __future__ import annotations

import time

from rich.console import Console


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
        """`text` says what is done from now on."""
        if not self._console.stderr or self._console.is_terminal:
            self._console.print(f"{self.seconds:5.1f} s  {text}", markup=False)
