"""Makes the contents of functions, where they are deployed: reads their artifacts and hashes their weights."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from faasmoe.errors import CheckpointChanged, OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol.content import ContentFile, ContentRange, FunctionContent
from faasmoe.platforms.cluster.weights import file_table
from faasmoe.platforms.cluster.weights.digest_book import DigestBook, FileChanged, Span
from faasmoe.platforms.cluster.weights.file_table import FileRow
from faasmoe.util.machine import cores
from faasmoe.util.progress_log import progress_log

log = logging.getLogger(__name__)

MOST_ARTIFACT = 16 << 20  # bytes


def contents_of(specs: Sequence[FunctionSpec], book: DigestBook) -> list[FunctionContent | None]:
    """The content of each function; None if its artifact is no regular file, which is not sent to nodes then.

    Weights that have not been hashed yet are, on all cores, with progress in the log. Raises `OptionError` if an
    artifact is too large, or does not say which files it maps; `CheckpointChanged` if one of these is not as it was.
    """
    parts = [_without_digests(spec) for spec in specs]
    digests = _digests([part for part in parts if part], book)
    return [part and _content(*part, digests) for part in parts]


def _without_digests(spec: FunctionSpec) -> tuple[bytes, list[FileRow], tuple[FileRange, ...]] | None:
    """What the artifact says, its file table, and the ranges that are mapped."""
    if not spec.artifact.is_file():
        return None
    with spec.artifact.open("rb") as stream:
        artifact = stream.read(MOST_ARTIFACT + 1)
    if len(artifact) > MOST_ARTIFACT:
        raise OptionError(f"function {spec.name}: {spec.artifact} has more than {MOST_ARTIFACT} bytes; weights must be "
                          "in files that it names")  # fmt: skip
    if not spec.files:
        return artifact, [], ()
    try:
        content, rows = file_table.split(artifact)
    except ValueError as error:
        raise OptionError(f"function {spec.name}: {spec.artifact}: {error}") from error
    if missing := {str(part.file) for part in spec.files} - {row.path for row in rows}:
        raise OptionError(f"function {spec.name}: {spec.artifact} does not list {min(missing)}, which it maps")
    return content, rows, tuple(part for part in spec.files if part.length)


def _digests(
    parts: Iterable[tuple[bytes, list[FileRow], tuple[FileRange, ...]]], book: DigestBook
) -> dict[str, dict[Span, bytes]]:
    """Digests of all pieces, by path."""
    rows: dict[str, FileRow] = {}
    spans: dict[str, dict[Span, None]] = {}
    for _, table, ranges in parts:
        numbers = {row.path: row for row in table}
        for part in ranges:
            path = str(part.file)
            if rows.setdefault(path, numbers[path]) != numbers[path]:
                raise _changed(path)
            pieces = ContentRange(0, part.offset, part.length).pieces()
            spans.setdefault(path, {}).update(dict.fromkeys((piece.offset, piece.length) for piece in pieces))
    if not spans:
        return {}
    book.sweep()
    needed = sum(length for its in spans.values() for _, length in its)
    advance = progress_log(
        log, f"hashing weights for nodes, {needed / 1e9:.2f} GB, once for this checkpoint", needed
    )
    found = {}
    for path, its in spans.items():
        try:
            row, found[path] = book.digests(Path(path), its, advance, cores())
        except FileChanged as error:
            raise _changed(path) from error
        except OSError as error:
            raise OptionError(f"{path} cannot be read: {error.strerror}") from error
        if row[1:] != rows[path][1:]:
            raise _changed(path)
    return found


def _content(
    artifact: bytes, rows: Sequence[FileRow], ranges: Sequence[FileRange], digests: dict[str, dict[Span, bytes]]
) -> FunctionContent:
    numbers = {row.path: number for number, row in enumerate(rows)}
    filled = []
    for part in ranges:
        path = str(part.file)
        bare = ContentRange(numbers[path], part.offset, part.length)
        known = b"".join(digests[path][piece.offset, piece.length] for piece in bare.pieces())
        filled.append(ContentRange(bare.file, bare.offset, bare.length, known))
    return FunctionContent(artifact, tuple(ContentFile(row.path, row.size) for row in rows), tuple(filled))


def _changed(path: str) -> CheckpointChanged:
    return CheckpointChanged(f"{Path(path).name} was changed while it was deployed; restart the server to load what is "
                             "there now")  # fmt: skip
