"""The catalogue of a pool: its functions and their hosts, of which each agent and each client has a copy.

Copies differ for a moment only: entries carry stamps, the newer one of two holds, and a removed function leaves an
entry that says so. A node that comes back with old entries is told the newer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from faasmoe.platforms.base import FunctionSpec
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry


class Catalogue:
    """One copy. Not for several threads at once."""

    def __init__(self) -> None:
        self.entries: dict[str, CatalogueEntry] = {}
        self.stamp = 0  # the largest of all entries

    def functions(self) -> dict[str, CatalogueEntry]:
        """The entries of functions that are deployed."""
        return {name: entry for name, entry in self.entries.items() if entry.spec is not None}

    def has(self, name: str) -> bool:
        """Whether the function is deployed."""
        entry = self.entries.get(name)
        return entry is not None and entry.spec is not None

    def deployed(self, specs: Iterable[tuple[FunctionSpec, FunctionContent | None]]) -> list[CatalogueEntry]:
        """Entries for functions and their contents, of those alone that are not so already."""
        stamp, made = self.stamp + 1, []
        for spec, content in specs:
            known = self.entries.get(spec.name)
            if known is None or (known.spec, known.content) != (spec, content):
                made.append(CatalogueEntry(spec.name, stamp, spec, content, known.hosts if known else ()))
        return made

    def removed(self, names: Sequence[str]) -> list[CatalogueEntry]:
        """Entries for functions that are removed."""
        return [CatalogueEntry(name, self.stamp + 1, None) for name in names]

    def hosted(self, hosts: Mapping[str, tuple[str, ...]]) -> list[CatalogueEntry]:
        """Entries for deployed functions that other nodes are to run than before."""
        stamp = self.stamp + 1
        return [
            msgspec.structs.replace(entry, stamp=stamp, hosts=hosts[name])
            for name, entry in self.functions().items()
            if hosts.get(name, entry.hosts) != entry.hosts
        ]

    def newer(self, entries: Iterable[CatalogueEntry]) -> list[CatalogueEntry]:
        """Those of `entries` that are newer than what is known of their functions."""
        return [e for e in entries if (known := self.entries.get(e.name)) is None or e.stamp > known.stamp]

    def merge(self, entries: Iterable[CatalogueEntry]) -> None:
        """Take over what is newer."""
        for entry in entries:
            if self.newer([entry]):
                self.entries[entry.name] = entry
                self.stamp = max(self.stamp, entry.stamp)

    def beyond(self, stamp: int) -> list[CatalogueEntry]:
        """Entries that are newer than `stamp`."""
        return [entry for entry in self.entries.values() if entry.stamp > stamp]
