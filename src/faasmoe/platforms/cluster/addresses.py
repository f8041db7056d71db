"""Addresses of agents, as users write them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import OptionError

_MOST_BYTES = 1 << 20  # of a list of nodes
_MOST_PORT = (1 << 16) - 1


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where an agent listens."""

    host: str  # an IP address
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> NodeAddress:
    """An address written as HOST:PORT. Raises `OptionError` for what is none, or leaves this machine.

    What calls carry is not encrypted, so nobody else may be on the way.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > _MOST_PORT:
        raise OptionError(f"{text}: must be HOST:PORT, such as 127.0.0.1:7000")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise OptionError(f"{text}: {host} must be an IP address, or localhost") from None
    if not address.is_loopback:
        raise OptionError(
            f"{text}: must be a loopback address, such as 127.0.0.1: connections are not encrypted. For another "
            "machine, forward a port of this one to it by ssh"
        )
    return NodeAddress(str(address), int(port))


def read_nodes(file: Path) -> list[NodeAddress]:
    """The addresses in a list of nodes: one a line, `#` begins a comment. Raises `OptionError`."""
    try:
        with file.open(encoding="utf-8") as stream:
            lines = stream.read(_MOST_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"nodes_file {file}: cannot be read: {error}") from error
    found: list[NodeAddress] = []
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            try:
                address = read_address(text)
            except OptionError as error:
                raise OptionError(f"nodes_file {file}, line {number}: {error}") from error
            if address in found:
                raise OptionError(f"nodes_file {file}, line {number}: {address} is there twice")
            found.append(address)
    if not found:
        raise OptionError(f"nodes_file {file}: lists no node; each line must be HOST:PORT")
    return found
