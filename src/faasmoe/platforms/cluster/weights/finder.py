"""Finds the weights of a function: in files of this machine, in the cache, or at the server of the node's pool."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.weights.cache import CacheEntry, WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.draft import WeightsDraft
from faasmoe.platforms.cluster.weights.file_table import FileRow
from faasmoe.platforms.cluster.weights.piece_lane import PieceLane
from faasmoe.platforms.cluster.weights.search import OtherContent, WeightSearch, matching
from faasmoe.platforms.local.protocol.wire import Lost

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FoundWeights:
    """Where a function's weights are."""

    rows: list[FileRow]  # of its files, in order
    entry: CacheEntry | None = None  # that keeps them; None: they are not of the cache


class WeightsFinder:
    """For one thread at a time, but for `known`."""

    def __init__(self, search: WeightSearch, cache: WeightsCache, book: DigestBook) -> None:
        self._search = search
        self._cache = cache
        self._book = book

    def known(self, content: FunctionContent) -> FoundWeights | None:
        """The weights, if they are known to be here: no file is read. For any thread."""
        if not content.ranges:  # there is nothing to map, so no file is opened
            return FoundWeights([FileRow(file.path, 0, 0, file.size, 0) for file in content.files])
        rows, _ = self._search.find(content, read=False)
        return FoundWeights(rows) if rows else self._cached(content)

    def here(self, function: str, content: FunctionContent) -> FoundWeights | None:
        """The weights, if they are in files of this machine, which are read as far as that was not done before."""
        rows, wrong = self._search.find(content, read=True)
        for each in wrong:
            log.warning("weights of %s: %s", function, each)
        return FoundWeights(rows) if rows else None

    def fetch(self, function: str, content: FunctionContent, lane: PieceLane | None) -> FoundWeights:
        """The weights in the cache, after what is missing there was fetched over `lane`.

        Raises `PiecesRefused`; `Lost` if something is missing and there is no lane, or it ends; `OSError`, such as
        `CacheFull`.
        """
        entry = self._cache.make(content.weights_digest, content.nbytes)
        try:
            with WeightsDraft(content, entry) as draft:
                if missing := draft.missing():
                    if lane is None:
                        raise Lost("no server is connected from which they could be fetched")
                    draft.fetch(lane, function, missing)
                return FoundWeights(draft.finish(self._book), entry)
        except BaseException:
            entry.close()
            raise

    def _cached(self, content: FunctionContent) -> FoundWeights | None:
        if (entry := self._cache.entry(content.weights_digest)) is None:
            return None
        pieces, rows = content.pieces(), []
        try:
            for number, file in enumerate(content.files):
                its = {(p.offset, p.length): digest for p, digest in pieces.items() if p.file == number}
                rows.append(matching(self._book, entry.file(number), file.size, its, read=False))
        except (OSError, OtherContent):  # it is not whole
            rows = [None]
        if all(rows):
            return FoundWeights([row for row in rows if row], entry)
        entry.close()
        return None
