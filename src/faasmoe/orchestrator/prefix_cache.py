"""Keys and values of ended sequences, kept for requests of the same tenant that start with the same tokens."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from faasmoe.orchestrator.kv_cache import KVCache

LEAST = 16  # tokens that are worth keeping: fewer are computed in the step that has to run anyway

Tokens = NDArray[np.int64]
_Bucket = tuple[str, bytes]  # a tenant and the first `LEAST` tokens


@dataclass(eq=False, frozen=True, slots=True)
class Prefix:
    """The keys and values of `tokens`."""

    tenant: str
    tokens: Tokens
    cache: KVCache
    capacity: int  # tokens that the cache has memory for

    @property
    def bucket(self) -> _Bucket:
        """Where it is found."""
        return self.tenant, self.tokens[:LEAST].tobytes()


class PrefixCache:
    """Prefixes by tenant and beginning, in the order of their last use. Another tenant's are never found."""

    def __init__(self) -> None:
        self._buckets: dict[_Bucket, list[Prefix]] = {}
        self._by_use: OrderedDict[Prefix, None] = OrderedDict()
        self.capacity = 0  # tokens of all

    def __len__(self) -> int:
        return len(self._by_use)

    def find(self, tenant: str, tokens: Tokens) -> tuple[Prefix, int] | None:
        """The prefix that has most in common with `tokens`, and how many: at least `LEAST`, and never all of them."""
        wanted = tokens[:-1]
        best, most = None, LEAST - 1
        for prefix in self._buckets.get((tenant, wanted[:LEAST].tobytes()), ()):
            if (common := common_length(prefix.tokens, wanted)) > most:
                best, most = prefix, common
        return (best, most) if best else None

    def add(self, prefix: Prefix) -> bool:
        """Keep it, instead of those that it continues. False if one that is kept holds all of it."""
        bucket = self._buckets.setdefault(prefix.bucket, [])
        for other in list(bucket):
            common = common_length(other.tokens, prefix.tokens)
            if common == len(prefix.tokens):
                self.touch(other)
                return False
            if common == len(other.tokens):
                self.remove(other)
        self._buckets.setdefault(prefix.bucket, []).append(prefix)
        self._by_use[prefix] = None
        self.capacity += prefix.capacity
        return True

    def remove(self, prefix: Prefix) -> None:
        """Keep it no longer."""
        bucket = self._buckets[prefix.bucket]
        bucket.remove(prefix)
        if not bucket:
            del self._buckets[prefix.bucket]
        del self._by_use[prefix]
        self.capacity -= prefix.capacity

    def touch(self, prefix: Prefix) -> None:
        """It was used just now."""
        self._by_use.move_to_end(prefix)

    def evict(self) -> int:
        """Drop the one whose last use is longest ago. Returns the tokens that it had memory for, 0 if there is none."""
        prefix = next(iter(self._by_use), None)
        if prefix is None:
            return 0
        self.remove(prefix)
        return prefix.capacity


def common_length(one: Tokens, other: Tokens) -> int:
    """How many tokens both start with."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
