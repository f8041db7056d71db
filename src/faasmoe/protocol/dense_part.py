"""The file by which a template tells the gateway what orchestrators on other machines read of the checkpoint.

It is the artifact of a function that is deployed nowhere: a line with the ranges, each the index of a file, an offset
and a length in bytes, then the file table (`platforms.base.FunctionSpec`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

DENSE = "dense-part"  # its name, in the folder that a gateway shares with its templates

Row = tuple[str, int, int, int, int]  # path, device, inode, size in bytes, mtime in ns
DenseRange = tuple[str, int, int]  # path, offset and length in bytes

_ranges = msgspec.json.Decoder(list[tuple[int, int, int]])
_rows = msgspec.json.Decoder(list[Row])


def write(artifact: Path, rows: Sequence[Row], ranges: Sequence[DenseRange]) -> None:
    """Write or replace the file. Each range is of one of the files `rows`. Raises `OSError`."""
    numbers = {path: number for number, (path, *_) in enumerate(rows)}
    lines = [(numbers[path], offset, length) for path, offset, length in ranges], rows
    draft = artifact.with_suffix(".new")
    draft.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    draft.rename(artifact)


def read(artifact: Path) -> list[DenseRange]:
    """The ranges. Raises `OSError` if there is no such file, `ValueError` if it is malformed."""
    try:
        first, table, _ = artifact.read_bytes().split(b"\n")
        rows = _rows.decode(table)
        return [(rows[number][0], offset, length) for number, offset, length in _ranges.decode(first)]
    except (msgspec.DecodeError, IndexError) as error:
        raise ValueError(f"{artifact}: {error}") from error
