"""Addresses of agents, as users write them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from faasmoe.errors import OptionError

_MOST_BYTES = 1 << 20  # of a list of nodes
_LONGEST_NAME = 64  # characters, of a certificate's common name (RFC 5280, appendix A.1)
_MOST_PORT = (1 << 16) - 1
_NAME = re.compile(r"(?=.{1,253}$)(?![\d.]+$)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*",
                   re.ASCII | re.IGNORECASE)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """Where an agent or a server listens."""

    host: str  # an IP address, or the name of a machine
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach it."""
        return (found := _ip(self.host)) is not None and found.is_loopback


def read_address(text: str) -> NodeAddress:
    """An address written as HOST:PORT. Raises `OptionError` for what is none."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > _MOST_PORT:
        raise OptionError(f"{text}: must be HOST:PORT, such as 127.0.0.1:7000")
    if host == "localhost":
        return NodeAddress("127.0.0.1", int(port))
    address = _ip(host)
    if address is None and not _NAME.fullmatch(host):
        raise OptionError(f"{text}: {host} must be an IP address, or the name of a machine")
    return NodeAddress(str(address or host), int(port))


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def check_name(name: str) -> None:
    """Raises `OptionError` if a node cannot have that name, which is also that of a folder."""
    if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or set(name) & set("/ ") or name[0] == ".":
        raise OptionError(
            f"--name {name!r}: must be 1 to {_LONGEST_NAME} characters without spaces and slashes, and not begin with "
            "a dot"
        )


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
