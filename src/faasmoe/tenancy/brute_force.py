"""A limit on wrong keys from one address. A plain data structure for one thread, with a clock given to it."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from faasmoe.tenancy.limits.sliding_window import SlidingWindow

MOST = 10  # wrong keys of one origin in a minute
_ROOM = 10_000  # origins that are remembered, those that were wrong last


class BruteForceGuard:
    """Counts wrong keys by the address that they come from.

    Only wrong keys are told to wait: a right key works whatever others have tried from its address, which may be a
    proxy's. A key's secret has 256 random bits, so no number of tries finds it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, SlidingWindow] = OrderedDict()

    def wrong(self, address: str) -> float:
        """Count a wrong key. Returns seconds to wait, 0 if there were few."""
        origin = network(address)
        window = self._wrong.setdefault(origin, SlidingWindow())
        self._wrong.move_to_end(origin)
        wait = window.wait(1, MOST, self._clock())
        if wait == 0:  # so that who goes on trying gets a try a minute later
            window.add(1, self._clock())
        if len(self._wrong) > _ROOM:
            self._wrong.popitem(last=False)
        return wait


def network(address: str) -> str:
    """The network that counts as one client: one IPv4 address, or a /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
