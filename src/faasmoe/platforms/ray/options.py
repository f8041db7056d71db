"""Options of the platform `ray`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from faasmoe.errors import OptionError
from faasmoe.platforms.base import DEFAULT_KEEP_ALIVE

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RayOptions:
    """Which Ray cluster, and how much of it. Raises `OptionError` naming the option if a value is out of range."""

    keep_alive: float = DEFAULT_KEEP_ALIVE  # seconds, of agents
    release_page_cache: bool = False  # of agents
    address: str = field(
        default="auto",
        metadata={"help": "The Ray cluster: auto, or HOST:PORT of its head. This machine must have joined it."},
    )
    namespace: str = field(
        default="faasmoe",
        metadata={"help": "Ray namespace of the agents. Servers that share a Ray cluster need one each."},
    )
    cluster_folder: str = field(
        default="", metadata={"help": "Folder of the cluster's keys; empty: cluster in the user's data folder."}
    )
    node_gib: float = field(
        default=0.0,
        metadata={"help": "GiB for functions on each node; 0: four fifths of the memory that Ray counts there."},
    )
    min_nodes: int = field(
        default=1, metadata={"help": "Nodes that are kept although they are idle; 0: only Ray's head stays."}
    )
    max_nodes: int = field(default=0, metadata={"help": "Most nodes that are used; 0: no limit."})
    idle_seconds: float = field(
        default=600.0, metadata={"help": "Seconds without a call or an instance after which Ray may take a node."}
    )
    start_seconds: float = field(
        default=300.0, metadata={"help": "Seconds that a server waits for its first node."}
    )

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise OptionError(
                f"address {self.address}: clients of Ray cannot be used; run this on a machine of the Ray cluster"
            )
        if not self.namespace.isidentifier():
            raise OptionError(f"namespace is {self.namespace!r}: must be a word")
        if not 0 <= self.node_gib < math.inf:
            raise OptionError(f"node_gib is {self.node_gib}: must be at least 0")
        if self.min_nodes < 0:
            raise OptionError(f"min_nodes is {self.min_nodes}: must be at least 0")
        if self.max_nodes and self.max_nodes < max(1, self.min_nodes):
            raise OptionError(f"max_nodes is {self.max_nodes}: must be 0, or at least 1 and min_nodes")
        for name in ("keep_alive", "idle_seconds", "start_seconds"):
            if not getattr(self, name) >= 0:  # so that NaN is refused
                raise OptionError(f"{name} is {getattr(self, name)}: must be at least 0 seconds, or inf")

    @property
    def node_memory(self) -> int | None:
        """Bytes for functions on each node; None: a part of what Ray counts."""
        return int(self.node_gib * GIB) or None
