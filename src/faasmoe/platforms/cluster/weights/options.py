"""Options of a node for the weights of its functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faasmoe.platforms.cluster.weights.cache import WeightsCache
from faasmoe.platforms.cluster.weights.digest_book import DigestBook
from faasmoe.platforms.cluster.weights.finder import WeightsFinder
from faasmoe.platforms.cluster.weights.search import WeightSearch
from faasmoe.util.folders.user_cache import user_cache


@dataclass(frozen=True, slots=True)
class WeightsOptions:
    """Where a node looks for weights, and how much of what it has fetched it keeps."""

    folders: tuple[Path, ...] = ()  # in which checkpoints may lie
    cache: int | None = None  # most bytes of fetched weights; None: as many as the disk has room for

    def finder(self) -> WeightsFinder:
        """What finds weights by these options. Raises `OptionError` if nothing says where this user's cache is."""
        book = DigestBook.of_user()
        return WeightsFinder(
            WeightSearch(self.folders, book), WeightsCache(user_cache() / "weights", self.cache), book
        )
