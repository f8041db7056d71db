"""`faasmoe node`."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from faasmoe.cli.numeric import real, size
from faasmoe.cli.options import KeepAlive, MemoryBudget, ReleasePageCache
from faasmoe.cli.platforms import PlatformOptions, platform_options
from faasmoe.cli.server.options import LogFormat, LogLevel
from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.platforms.cluster.addresses import NodeAddress

_LONGEST_NAME = 64
_LONGEST_DRAIN = 86400  # seconds

SecretFile = Annotated[
    Path,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        help="File with the secret of the cluster, which this user alone may read.",
        show_default=False,
    ),
]


def node(
    secret_file: SecretFile,
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Loopback address to listen on; port 0 takes a free one."),
    ] = "127.0.0.1:7000",
    name: Annotated[
        str | None,
        typer.Option(help="Name of the node, unique in its cluster. Default: the machine's.", show_default=False),
    ] = None,
    keep_alive: KeepAlive = None,
    memory_budget: MemoryBudget = None,
    release_page_cache: ReleasePageCache = False,
    platform_option: PlatformOptions = None,
    weights: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder with checkpoints of this machine, in which weights are looked for before they are fetched. "
            "May be given more than once.",
            show_default=False,
        ),
    ] = None,
    weights_cache: Annotated[
        int | None,
        size(
            help="Most that fetched weights may take in this user's cache, such as 200GB; what has been unused for "
            "longest goes first. Default: as much as the disk has.",
            show_default=False,
        ),
    ] = None,
    drain_seconds: Annotated[
        float,
        real(0, _LONGEST_DRAIN, help="Longest time for calls that run when the node is to end."),
    ] = 10.0,
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
) -> None:
    """Run functions on this machine for a server with --platform nodes.

    The node is the embedded platform and takes its options. SIGTERM has it finish the calls that run.
    """
    from faasmoe.experts import PRELOAD
    from faasmoe.platforms.cluster.addresses import read_address
    from faasmoe.platforms.cluster.agent.agent import NodeAgent
    from faasmoe.platforms.cluster.protocol.handshake import read_secret
    from faasmoe.platforms.cluster.weights.options import WeightsOptions
    from faasmoe.platforms.registry import find
    from faasmoe.util import logs

    logs.configure("node", log_format, log_level)
    name = _name(name)
    secret = read_secret(secret_file)
    options = platform_options(find("local"), platform_option, keep_alive, memory_budget, release_page_cache)
    its = WeightsOptions(tuple(folder.absolute() for folder in weights or ()), weights_cache)
    with (
        _bind(read_address(listen)) as listener,
        NodeAgent(name, listener, secret, options, PRELOAD, its) as agent,
    ):
        agent.start()
        host, port, *_ = listener.getsockname()
        typer.echo(f"node {name} listens on {f'[{host}]' if ':' in host else host}:{port}")
        try:
            signal.pause()
        except SystemExit:  # of a signal
            agent.drain(drain_seconds)


def _name(given: str | None) -> str:
    """Raises `OptionError`."""
    name = socket.gethostname() if given is None else given
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or set(name) & set("/ \t"):
        raise OptionError(f"--name {name!r}: must be 1 to {_LONGEST_NAME} characters without spaces and slashes")
    return name


def _bind(address: NodeAddress) -> socket.socket:
    """Raises `OptionError`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise OptionError(f"--listen {address}: {error.strerror}") from error
    return listener
