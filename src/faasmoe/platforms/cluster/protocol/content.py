"""The content of a function: its artifact, and digests of the weights that it maps, whichever machine they lie on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

PIECE = 4 << 20  # bytes of a piece of weights; the last one of a range may be shorter
DIGEST = 32  # bytes of a SHA-256


class WeightPiece(NamedTuple):
    """A part of a file of weights, which is hashed and fetched as a whole."""

    file: int  # index in `FunctionContent.files`
    offset: int  # bytes
    length: int  # bytes


class ContentFile(msgspec.Struct, frozen=True, array_like=True):
    """A file of weights on the machine where the function was deployed."""

    path: str
    size: int  # bytes


class ContentRange(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of a file that a function maps."""

    file: int  # index in `FunctionContent.files`
    offset: int  # bytes
    length: int  # bytes
    digests: bytes = b""  # SHA-256 of each of its pieces, one after the other

    def pieces(self) -> Iterator[WeightPiece]:
        """The range, cut into pieces."""
        for at in range(0, self.length, PIECE):
            yield WeightPiece(self.file, self.offset + at, min(PIECE, self.length - at))


class FunctionContent(msgspec.Struct, frozen=True, array_like=True):
    """All bytes that an instance computes with. Equal contents have equal digests, wherever their files lie."""

    artifact: bytes  # without its file table
    files: tuple[ContentFile, ...] = ()
    ranges: tuple[ContentRange, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of weights."""
        return sum(each.length for each in self.ranges)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal digits, of the artifact, the files' sizes, and the digests of all pieces."""
        return _sha256((self.artifact, self._weights()))

    @property
    def weights_digest(self) -> str:
        """The digest of the weights alone: it names them in a cache."""
        return _sha256(self._weights())

    def pieces(self) -> dict[WeightPiece, bytes]:
        """All pieces with their digests, in order."""
        return {
            piece: each.digests[i * DIGEST : (i + 1) * DIGEST]
            for each in self.ranges
            for i, piece in enumerate(each.pieces())
        }

    def whole(self) -> bool:
        """Whether ranges lie in their files and have a digest for each piece."""
        sizes = [file.size for file in self.files]
        return all(
            0 <= each.file < len(sizes)
            and each.offset >= 0
            and 0 < each.length <= sizes[each.file] - each.offset
            and len(each.digests) == DIGEST * -(-each.length // PIECE)
            for each in self.ranges
        )

    def _weights(self) -> tuple[object, ...]:
        return tuple(file.size for file in self.files), self.ranges


def _sha256(what: tuple[object, ...]) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(what)).hexdigest()
