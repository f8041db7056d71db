"""Options of the platform `nodes`."""

from __future__ import annotations

from dataclasses import dataclass, field

from faasmoe.errors import OptionError


@dataclass(frozen=True, slots=True)
class NodesOptions:
    """Where the nodes are. Their own options, such as their memory, are those of `faasmoe node`."""

    nodes_file: str = field(
        default="", metadata={"help": "File with the nodes' addresses, HOST:PORT one a line. It may change."}
    )
    join: str = field(default="", metadata={"help": "HOST:PORT on which nodes may join by a token."})
    cluster_folder: str = field(
        default="", metadata={"help": "Folder of the cluster's keys; empty: cluster in the user's data folder."}
    )

    def check(self) -> None:
        """Raises `OptionError` if there would never be a node."""
        if not self.nodes_file and not self.join:
            raise OptionError(
                "--platform nodes needs --platform-option join=HOST:PORT or nodes_file=FILE, or both"
            )
