"""Finds the client's address of a request that came through trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from faasmoe.errors import OptionError

_LONGEST = 64  # addresses of one request that are looked at

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class TrustedProxies:
    """Networks whose `X-Forwarded-For` is believed. Without any, nobody's is."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Parse networks or addresses, separated by commas: `10.0.0.0/8,::1`. Raises `OptionError`."""
        found = []
        for part in (text or "").split(","):
            if not part.strip():
                continue
            try:
                found.append(ipaddress.ip_network(part.strip(), strict=False))
            except ValueError as error:
                raise OptionError(
                    f"--trusted-proxies {part.strip()}: must be addresses or networks, separated by commas, such as "
                    "127.0.0.1,10.0.0.0/8"
                ) from error
        return cls(tuple(found))

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client's address: `peer`'s, unless it is a trusted proxy.

        `forwarded` are the values of `X-Forwarded-For`, in order. Each proxy appends the address that it was called
        from, so the last one that is no trusted proxy is the client; what stands before it anybody can have written.
        The header `Forwarded` is not read: proxies that do not write it pass on what a client has written.
        """
        client = peer
        if not self._trusts(peer):
            return client
        for text in ",".join(forwarded).split(",")[: -_LONGEST - 1 : -1]:
            address = _address(text)
            if address is None:
                break
            client = str(address)
            if not self._trusts(client):
                break
        return client

    def _trusts(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self.networks
        )


def _address(text: str) -> Address | None:
    """An address as proxies write it, with a port or without; None if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address
