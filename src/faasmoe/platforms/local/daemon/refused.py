"""What the daemon cannot do for a client."""

from __future__ import annotations


class Refused(Exception):
    """What was asked for cannot be done. `kind` tells the client which error to raise."""

    def __init__(self, kind: str, cause: str) -> None:
        super().__init__(cause)
        self.kind = kind
