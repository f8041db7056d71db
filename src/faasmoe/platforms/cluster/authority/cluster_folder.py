"""Where keys, certificates, tokens and members of a cluster lie on a machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from faasmoe.platforms.cluster.authority.identity import ClusterIdentity


@dataclass(frozen=True, slots=True)
class ClusterFolder:
    """The folder on the server's machine has the authority and the server's identity; each node has its own there."""

    path: Path

    @classmethod
    def of(cls, given: str | Path | None) -> ClusterFolder:
        """The folder that was given, or the default one in the user's data folder."""
        return cls(Path(given).absolute() if given else Path(platformdirs.user_data_dir("faasmoe")) / "cluster")

    @property
    def server(self) -> ClusterIdentity:
        """The identity of the server's processes, which they share."""
        return ClusterIdentity(self.path / "server")

    def node(self, name: str) -> ClusterIdentity:
        """The identity of a node on this machine."""
        return ClusterIdentity(self.path / "nodes" / name)

    def orchestrator(self, node: str) -> ClusterIdentity:
        """The identity of a node's orchestrators, which they share."""
        return ClusterIdentity(self.path / "orchestrators" / node)
