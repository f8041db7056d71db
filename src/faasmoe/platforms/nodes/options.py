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

    orchestrators: str = field(
        default="",
        metadata={
            "help": "Nodes that run the server's orchestrators and see text: their names, with commas between, or all. "
            "They must be started with --orchestrators as well. Empty: orchestrators run on the server's machine."
        },
    )

    @property
    def orchestrator_nodes(self) -> frozenset[str]:
        """Names of the nodes that may run orchestrators."""
        return frozenset(name for each in self.orchestrators.split(",") if (name := each.strip()))

    def check(self) -> None:
        """Raises `OptionError` if there would never be a node."""
        if not self.nodes_file and not self.join:
            raise OptionError(
                "--platform nodes needs --platform-option join=HOST:PORT or nodes_file=FILE, or both"
            )
