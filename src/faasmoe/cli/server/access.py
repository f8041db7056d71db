"""The clients that may reach a server, and the identities that they have."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faasmoe.errors import OptionError

if TYPE_CHECKING:
    from faasmoe.cli.server.options import TenancyParameters
    from faasmoe.tenancy.prices import Prices
    from faasmoe.tenancy.proxies import TrustedProxies
    from faasmoe.tenancy.service import TenancyService


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of access to a server: database, prices, trusted proxies, and `--open`."""

    database: str | None
    prices: Prices | None
    proxies: TrustedProxies
    chosen_open: bool

    @classmethod
    def of(cls, given: TenancyParameters) -> Terms:
        """Raises what is wrong with the database's URL, the price table or the proxies.

        The database is not opened yet.
        """
        from faasmoe.tenancy.database.database import parse_url
        from faasmoe.tenancy.prices import read_prices
        from faasmoe.tenancy.proxies import TrustedProxies

        parse_url(given.database)
        return cls(
            database=given.database,
            prices=None if given.prices is None else read_prices(given.prices),
            proxies=TrustedProxies.parse(given.trusted_proxies),
            chosen_open=given.open_,
        )


def bind(option: str, host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises `OptionError` naming `--OPTIONhost` and `--OPTIONport`."""
    from faasmoe.api.http.server import BACKLOG

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Of its connections too: asyncio sets it only where a socket names its protocol. Without, the second part of an
    # answer waits up to 40 ms for the client to confirm the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or error
        raise OptionError(f"--{option}host {host} --{option}port {port}: cannot listen there: {why}") from error
    return listener


@contextmanager
def open_tenancy(terms: Terms, listener: socket.socket) -> Iterator[TenancyService]:
    """Tenants, keys and ledger of a server that listens on `listener`.

    Raises `OptionError` if anybody could reach a server that never had tenants, unless `--open` is given; and what is
    wrong with the database.
    """
    from faasmoe.tenancy.database.schema import open_database
    from faasmoe.tenancy.service import TenancyService

    local, prices, proxies = is_loopback(listener), terms.prices, terms.proxies
    with (
        open_database(terms.database) as opened,
        TenancyService(opened, prices, local=local, chosen_open=terms.chosen_open, proxies=proxies) as tenancy,
    ):
        if not tenancy.authentication.open and not tenancy.directory.now.added:
            raise OptionError(
                f"--host {listener.getsockname()[0]}: there are no tenants, so that whoever reaches it could use it; "
                "add one with 'faasmoe tenants add NAME', or let everybody in with --open"
            )
        yield tenancy


def is_loopback(listener: socket.socket) -> bool:
    """True if only this machine can reach the address."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def who_may(tenancy: TenancyService, listener: socket.socket) -> str:
    """A line for whoever has started the server."""
    tenants = len(tenancy.directory.now.tenants)
    if tenants:
        return f"{tenants} tenant{'s' if tenants > 1 else ''} may use it, each with its key"
    if not tenancy.authentication.open:
        return (
            "closed: there are no tenants any more, so nobody may use it; add one with 'faasmoe tenants add NAME', or "
            "let everybody in with --open"
        )
    if is_loopback(listener):
        return "open: there are no tenants, so whoever is on this machine may use it, without a key"
    return "open: there are no tenants, so whoever reaches it may use it, without a key"
