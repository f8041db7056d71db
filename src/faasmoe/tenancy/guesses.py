"""Wrong keys: who tries too many has to wait. A plain data structure for one thread, with a clock given to it."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable

from faasmoe.tenancy.window import SlidingWindow

MOST = 10  # wrong keys of one origin in a minute
_ROOM = 10_000  # origins that are remembered, those that were wrong last


class Guesses:
    """Counts wrong keys by where they come from.

    Two counts, since many clients may share an address behind a proxy: by address and key id, beyond which the key is
    not even looked at; and by address alone, beyond which wrong keys are told to wait and right ones still work.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[tuple[str, str], SlidingWindow] = OrderedDict()

    def barred(self, address: str, key_id: str) -> float:
        """Seconds until a key of this id from there is looked at again; 0 if it is now."""
        return self._wait((network(address), key_id))

    def wrong(self, address: str, key_id: str | None) -> float:
        """Count a wrong key; its id, if there is a key of that id. Returns seconds to wait, 0 if there are few."""
        place = network(address)
        wait = self._wait((place, ""))
        for origin in [(place, "")] if key_id is None else [(place, ""), (place, key_id)]:
            self._count(origin)
        return wait

    def _wait(self, origin: tuple[str, str]) -> float:
        window = self._wrong.get(origin)
        return 0.0 if window is None else window.wait(1, MOST, self._clock())

    def _count(self, origin: tuple[str, str]) -> None:
        window = self._wrong.setdefault(origin, SlidingWindow())
        self._wrong.move_to_end(origin)
        if self._wait(origin) == 0:  # so that who goes on trying gets a try a minute later
            window.add(1, self._clock())
        if len(self._wrong) > _ROOM:
            self._wrong.popitem(last=False)


def network(address: str) -> str:
    """What one client has of addresses: one of IPv4, 2^64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return address
