"""`faasmoe node`."""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faasmoe.cli.cluster.options import ClusterFolderOption
from faasmoe.cli.numeric import real, size, whole
from faasmoe.cli.options import KeepAlive, MemoryBudget, ReleasePageCache
from faasmoe.cli.parameters import grouped
from faasmoe.cli.platforms import PlatformOptions, platform_options
from faasmoe.cli.server.options import LogFormat, LogLevel
from faasmoe.protocol.config import MOST_ORCHESTRATORS

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder
    from faasmoe.platforms.cluster.joining.node_certificate import NodeCertificate
    from faasmoe.platforms.cluster.weights.options import WeightsOptions

_LONGEST_DRAIN = 86400  # seconds


Listen = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT",
        help="Address to listen on, 0.0.0.0 or :: for all of this machine; port 0 takes a free one.",
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the node, unique in its cluster. Default: the machine's.", show_default=False),
]
Join = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Where the server takes nodes (its --platform-option join). Without it the server must list the node, "
        "and it needs a certificate that is here already, or the cluster's authority on this machine.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with a token of faasmoe nodes token create, which this user alone may read. Needed to join; "
        "while the certificate holds it is not read, and may be gone.",
        show_default=False,
    ),
]
WeightsFolders = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder with checkpoints of this machine, in which weights are looked for before they are fetched. "
        "May be given more than once.",
        show_default=False,
    ),
]
WeightsCache = Annotated[
    int | None,
    size(
        help="Most that fetched weights may take in this user's cache, such as 200GB; what has been unused for "
        "longest goes first. Default: as much as the disk has.",
        show_default=False,
    ),
]
Orchestrators = Annotated[
    int,
    whole(
        0,
        MOST_ORCHESTRATORS,
        help="Orchestrators that may run here, which see text. The server must want that as well (its "
        "--platform-option orchestrators). They take memory for the model's dense part and KV caches beside "
        "--memory-budget.",
    ),
]
DrainSeconds = Annotated[
    float,
    real(0, _LONGEST_DRAIN, help="Most seconds, at SIGTERM, for functions to move elsewhere and calls to end."),
]


@dataclass(frozen=True, kw_only=True)
class JoiningParameters:
    """Options that say which node this is, and how the cluster knows it."""

    listen: Listen = "127.0.0.1:7000"
    name: Name = None
    join: Join = None
    token_file: TokenFile = None
    cluster_folder: ClusterFolderOption = None

    @property
    def node_name(self) -> str:
        """The name that was given, or the machine's."""
        return socket.gethostname() if self.name is None else self.name

    @property
    def folder(self) -> ClusterFolder:
        """The folder of the cluster's keys."""
        from faasmoe.platforms.cluster.authority.cluster_folder import ClusterFolder

        return ClusterFolder.of(self.cluster_folder)

    def certificate(self) -> NodeCertificate:
        """The node's certificate, which may have to be fetched. Raises `OptionError` for a name or an address."""
        from faasmoe.platforms.cluster.addresses import check_name, read_address
        from faasmoe.platforms.cluster.joining.node_certificate import NodeCertificate

        check_name(self.node_name)
        server = read_address(self.join) if self.join else None
        return NodeCertificate(self.node_name, self.folder, server, self.token_file)


@dataclass(frozen=True, kw_only=True)
class WeightsParameters:
    """Options that say where weights come from and go to."""

    weights: WeightsFolders = None
    weights_cache: WeightsCache = None

    @property
    def options(self) -> WeightsOptions:
        """What they say."""
        from faasmoe.platforms.cluster.weights.options import WeightsOptions

        return WeightsOptions(tuple(folder.absolute() for folder in self.weights or ()), self.weights_cache)


@grouped
def node(
    *,
    joining: JoiningParameters,
    keep_alive: KeepAlive = None,
    memory_budget: MemoryBudget = None,
    release_page_cache: ReleasePageCache = False,
    platform_option: PlatformOptions = None,
    weights: WeightsParameters,
    orchestrators: Orchestrators = 0,
    drain_seconds: DrainSeconds = 10.0,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run functions on this machine for a server with --platform nodes.

    The node is the embedded platform and takes its options. All connections are encrypted (TLS 1.3), and both sides
    show certificates of the cluster. SIGTERM has the node finish the calls that run.
    """
    from faasmoe.cli.cluster.hosting import hosting_of
    from faasmoe.experts import PRELOAD
    from faasmoe.platforms.cluster.addresses import read_address
    from faasmoe.platforms.cluster.agent.agent import NodeAgent
    from faasmoe.platforms.cluster.protocol.connection import address_of, bound
    from faasmoe.platforms.registry import find
    from faasmoe.util import logs

    logs.configure("node", log_format, log_level)
    certificate, name = joining.certificate(), joining.node_name
    options = platform_options(find("local"), platform_option, keep_alive, memory_budget, release_page_cache)
    with bound(read_address(joining.listen), "--listen") as listener:
        address = address_of(listener)
        certificate.prepare(address)
        hosting = hosting_of(name, orchestrators, joining.folder) if orchestrators else None
        with NodeAgent(
            name, listener, certificate.identity, options, PRELOAD, weights.options, hosting=hosting
        ) as agent:
            agent.start()
            with certificate.held(address, options.memory_budget):
                typer.echo(f"node {name} listens on {address}")
                try:
                    signal.pause()
                except SystemExit:  # of a signal
                    agent.drain(drain_seconds)
