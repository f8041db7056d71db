"""Whether a node has the files of a function: its artifact by contents, its weights by size."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry

_MOST_ARTIFACT = 64 << 20  # bytes; a larger one is weights, whose size is compared


def digest(file: Path) -> str:
    """SHA-256 of a file's contents, or its size if it is large; empty if it is missing or no regular file."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            return ""
        if found.st_size > _MOST_ARTIFACT:
            return f"{found.st_size} bytes"
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def check_files(entries: Iterable[CatalogueEntry], node: str) -> None:
    """Raises `OptionError`, naming node and file, if one of the functions' files is missing or another than it was."""
    ends: dict[Path, int] = {}
    for entry in entries:
        if entry.spec is None:
            continue
        if entry.digest and (here := digest(entry.spec.artifact)) != entry.digest:
            what = "is another file than where it was deployed" if here else "is missing"
            raise OptionError(f"function {entry.name}: {entry.spec.artifact} {what} on node {node}; {_ADVICE}")
        for part in entry.spec.files:
            ends[part.file] = max(ends.get(part.file, 0), part.offset + part.length)
    for file, end in ends.items():
        try:
            size = os.stat(file).st_size
        except OSError as error:
            raise OptionError(f"{file} cannot be read on node {node}: {error.strerror}; {_ADVICE}") from error
        if size < end:
            raise OptionError(f"{file} has {size} bytes on node {node}, and {end} are needed; {_ADVICE}")


_ADVICE = "all nodes must see the same files by the same paths"
