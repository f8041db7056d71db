"""A function as a node has it: where its weights are, or why they are not."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.weights.cache import CacheEntry


@dataclass(slots=True, eq=False, kw_only=True)
class NodeFunction:
    """What `NodeWeights` knows of one, under its lock."""

    spec: FunctionSpec  # as this node has it
    content: FunctionContent
    placed: bool = False  # its weights are here, and its artifact says where
    hosted: bool = False
    wanted: int = 0
    searched: bool = False  # it was looked for on this machine, in vain
    cause: str = ""  # of the last failure
    retry_at: float = 0.0  # instant of `time.monotonic`
    entry: CacheEntry | None = None

    def release(self) -> None:
        """Let the cache remove its weights. May be called twice."""
        if self.entry:
            self.entry.close()
            self.entry = None
