"""Options of the platform `nodes`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.addresses import read_nodes
from faasmoe.platforms.cluster.client.discovery import FileDiscovery


@dataclass(frozen=True, slots=True)
class NodesOptions:
    """Where the nodes are. Their own options, such as their memory, are those of `faasmoe node`."""

    nodes_file: str = field(
        default="", metadata={"help": "File with the nodes' addresses, HOST:PORT one a line; needed."}
    )
    secret_file: str = field(
        default="", metadata={"help": "File with the secret that the nodes were started with; needed."}
    )

    def discovery(self) -> FileDiscovery:
        """What tells the nodes. Raises `OptionError`."""
        for name in ("nodes_file", "secret_file"):
            if not getattr(self, name):
                raise OptionError(f"--platform nodes needs --platform-option {name}=FILE")
        return FileDiscovery(Path(self.nodes_file).absolute(), read_nodes)
