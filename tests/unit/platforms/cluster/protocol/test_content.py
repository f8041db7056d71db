"""Contents of functions as messages carry them."""

from __future__ import annotations

import pytest

from faasmoe.platforms.cluster.protocol.content import DIGEST, PIECE, ContentFile, ContentRange, FunctionContent

FILES = (ContentFile("/a", 10 * PIECE), ContentFile("/b", 5))
RANGES = (ContentRange(0, 7, PIECE + 1, b"1" * DIGEST + b"2" * DIGEST), ContentRange(1, 0, 5, b"3" * DIGEST))


def test_ranges_are_cut_where_they_begin() -> None:
    content = FunctionContent(b"", FILES, RANGES)
    assert content.pieces() == {
        (0, 7, PIECE): b"1" * DIGEST,
        (0, 7 + PIECE, 1): b"2" * DIGEST,
        (1, 0, 5): b"3" * DIGEST,
    }
    assert content.nbytes == PIECE + 6


def test_paths_are_no_part_of_the_digest() -> None:
    moved = tuple(ContentFile(f"/elsewhere{file.path}", file.size) for file in FILES)
    content = FunctionContent(b"x", FILES, RANGES)
    assert FunctionContent(b"x", moved, RANGES).digest == content.digest
    assert FunctionContent(b"y", FILES, RANGES).digest != content.digest
    assert FunctionContent(b"y", FILES, RANGES).weights_digest == content.weights_digest
    assert FunctionContent(b"x", FILES, RANGES[:1]).weights_digest != content.weights_digest


@pytest.mark.parametrize(
    "false",
    [
        ContentRange(2, 0, 5, bytes(DIGEST)),
        ContentRange(-1, 0, 5, bytes(DIGEST)),
        ContentRange(1, 1, 5, bytes(DIGEST)),
        ContentRange(1, -1, 5, bytes(DIGEST)),
        ContentRange(1, 0, 0),
        ContentRange(1, 0, -5),
        ContentRange(1, 0, 5, bytes(DIGEST - 1)),
        ContentRange(0, 0, PIECE + 1, bytes(DIGEST)),
    ],
)
def test_ranges_that_do_not_fit_are_noticed(false: ContentRange) -> None:
    assert FunctionContent(b"", FILES, RANGES).whole()
    assert not FunctionContent(b"", FILES, (*RANGES, false)).whole()
