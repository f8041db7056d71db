"""Signatures of the server under what its nodes run: each function's handler, the hash of its artifact, its weights.

Entries of the catalogue also come from other nodes, so it is the signature that counts, not who has sent them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry

PURPOSE = "faasmoe function 1"  # of the signatures


def signed(entries: Iterable[CatalogueEntry], sign: Callable[[bytes], bytes]) -> list[CatalogueEntry]:
    """The entries, those of deployed functions signed."""
    return [
        msgspec.structs.replace(entry, signature=sign(_content(messages.as_read(entry)))) if entry.spec else entry
        for entry in entries
    ]


def check_signed(entries: Iterable[CatalogueEntry], verify: Callable[[bytes, bytes], bool]) -> None:
    """`verify` tells whether a signature of bytes is the server's. Raises `OptionError` for what it has not signed."""
    for entry in entries:
        if entry.spec is None:
            continue
        if entry.content is None:
            raise OptionError(
                f"function {entry.name}: its artifact {entry.spec.artifact} is no file that has a hash"
            )
        if entry.name != entry.spec.name or not verify(entry.signature, _content(entry)):
            raise OptionError(f"function {entry.name}: the server has not signed it and the hash of its artifact")


def _content(entry: CatalogueEntry) -> bytes:
    """What is signed: all but where it runs now. The same for whoever has read the entry from a message."""
    return messages.encode(msgspec.structs.replace(entry, stamp=0, hosts=(), signature=b""))
