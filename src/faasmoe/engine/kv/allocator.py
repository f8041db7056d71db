"""Who has how much of the memory for keys and values: counts tokens, and has caches grow to what was counted."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Mapping
from itertools import islice

import numpy as np

from faasmoe.engine.kv.cache import KVCache
from faasmoe.engine.kv.prefix_cache import LEAST, Prefix, PrefixCache, Tokens, common_length
from faasmoe.engine.sequence import Sequence
from faasmoe.errors import OptionError, brief
from faasmoe.protocol.options import EngineOptions
from faasmoe.util.machine import available_memory

log = logging.getLogger(__name__)

UNLIMITED = sys.maxsize
_SHARE = 0.2  # of available memory, unless set: the rest is for instances, and for weights in the page cache
_QUANTUM = 16  # tokens: caches grow by no less, because growing copies them
_MOST_DONORS = 64  # running sequences that are looked at by one that begins
_SPARE = 4  # they grow by a quarter at least, if there is memory


class KVAllocator:
    """Memory for `total` tokens, shared by sequences and by prefixes that are kept for reuse.

    What counts is what a cache may hold, not what it holds. Prefixes go, the least recently used first, when
    a sequence needs their memory.
    """

    def __init__(self, total: int = UNLIMITED) -> None:
        self.total = total
        self.prefixes = PrefixCache()
        self._held: Counter[str] = Counter()  # tokens of sequences, by tenant
        self._began: dict[str, dict[Sequence, Tokens]] = {}  # a tenant's sequences, and what they began with

    @classmethod
    def of(cls, options: EngineOptions, kv_bytes: Mapping[int, int]) -> KVAllocator:
        """The memory that `options` give a model whose layers take `kv_bytes` bytes for a token's keys and values.

        Raises `OptionError` if that is not enough for a token.
        """
        a_token = token_bytes(kv_bytes)
        nbytes = budget(options)
        total = nbytes // a_token
        if not total:
            raise OptionError(
                f"kv_cache_bytes is {nbytes}: must be {a_token} at least, for one token of this model"
            )
        return cls(total)

    @property
    def used(self) -> int:
        """Tokens that memory is taken for."""
        return self._held.total() + self.prefixes.capacity

    def held(self, tenant: str) -> int:
        """Tokens that a tenant's sequences have memory for."""
        return self._held[tenant]

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """How many tokens' memory others would have to give up before `sequence` can have it for `tokens`."""
        free = self.total - self.used + self.prefixes.capacity
        return max(0, self._least(sequence, tokens) - sequence.capacity - free)

    def reserve(self, sequence: Sequence, tokens: int) -> None:
        """Give `sequence` memory for at least `tokens` tokens, of which none is `missing`, and some to spare."""
        if tokens <= sequence.capacity:
            return
        best = min(_round_up(tokens + tokens // _SPARE), sequence.limit)
        wanted = max(self._least(sequence, tokens), best) - sequence.capacity
        free = self.total - self.used
        while free < wanted and (evicted := self.prefixes.evict()):
            free += evicted
        self._change(sequence, min(free, wanted))
        sequence.cache.reserve(sequence.capacity)

    def begin(self, sequence: Sequence) -> None:
        """Give memory to `sequence` for all tokens it has, of which none is `missing`, and what others know of them."""
        tokens = np.array(sequence.tokens, dtype=np.int64)
        known = self._reuse(sequence, tokens) if sequence.reusable else 0
        self.reserve(sequence, len(tokens))
        sequence.computed = known
        if not sequence.seen:
            sequence.cached_tokens = known
        self._began.setdefault(sequence.tenant, {})[sequence] = tokens

    def _reuse(self, sequence: Sequence, tokens: Tokens) -> int:
        """Start its cache with what a kept prefix or a running sequence has of `tokens`. Returns how many it has."""
        donor, known = self._donor(sequence.tenant, tokens)
        prefix, common = self.prefixes.find(sequence.tenant, tokens) or (None, 0)
        if donor and known >= max(common, LEAST):
            self.reserve(sequence, len(tokens))
            return self._copy(sequence, donor.cache, known)
        if prefix is None:
            return 0
        fits_beside = self.missing(sequence, len(tokens) + prefix.capacity) == 0
        if fits_beside and common < len(prefix.tokens):  # others may have use for the rest
            self.prefixes.touch(prefix)
            self.reserve(sequence, len(tokens))
            return self._copy(sequence, prefix.cache, common)
        self.prefixes.remove(prefix)
        sequence.cache = prefix.cache
        sequence.cache.truncate(common)
        self._change(sequence, prefix.capacity)
        return common

    def _copy(self, sequence: Sequence, cache: KVCache, tokens: int) -> int:
        """Let `sequence` begin with the first `tokens` tokens of `cache`. Returns how many it has: all or none."""
        try:
            sequence.cache.copy_from(cache, tokens)
        except (MemoryError, RuntimeError) as error:  # the kernel gives less than was counted on
            log.warning("keys and values cannot be copied, and are computed: %s", brief(error))
            sequence.cache = KVCache()
            sequence.cache.reserve(sequence.capacity)
            return 0
        return tokens

    def _donor(self, tenant: str, tokens: Tokens) -> tuple[Sequence | None, int]:
        """Of those that began last, the one that has most in common with all of `tokens` but the last, and how many.

        Those that have much in common come together: the choices for one prompt, say.
        """
        best, most = None, 0
        for other, its in islice(reversed(self._began.get(tenant, {}).items()), _MOST_DONORS):
            known = min(common_length(its, tokens[:-1]), other.computed)
            if known > most:
                best, most = other, known
        return best, most

    def release(self, sequence: Sequence) -> None:
        """Take its memory from `sequence`, which computes all tokens again when it gets some."""
        self._change(sequence, -sequence.capacity)
        sequence.cache, sequence.computed = KVCache(), 0
        began = self._began.get(sequence.tenant, {})
        began.pop(sequence, None)
        if not began:
            self._began.pop(sequence.tenant, None)

    def end(self, sequence: Sequence, *, keep: bool) -> None:
        """`sequence` needs its memory no longer. With `keep` its keys and values wait for a request they fit."""
        capacity, computed, cache = sequence.capacity, sequence.computed, sequence.cache
        self.release(sequence)
        if keep and computed >= LEAST:
            tokens = np.array(sequence.tokens[:computed], dtype=np.int64)
            self.prefixes.add(Prefix(sequence.tenant, tokens, cache, capacity))

    def _change(self, sequence: Sequence, tokens: int) -> None:
        sequence.capacity += tokens
        self._held[sequence.tenant] += tokens
        if not self._held[sequence.tenant]:
            del self._held[sequence.tenant]

    def _least(self, sequence: Sequence, tokens: int) -> int:
        """What it must have for `tokens` tokens."""
        return max(tokens, min(_round_up(tokens), sequence.limit))


def token_bytes(kv_bytes: Mapping[int, int]) -> int:
    """Bytes that a token is counted with: while a cache grows, one of its layers exists twice, at most the largest."""
    return sum(kv_bytes.values()) + max(kv_bytes.values())


def budget(options: EngineOptions) -> int:
    """Bytes for keys and values: as set, or a share of the memory that is available now."""
    return options.kv_cache_bytes or int(_SHARE * available_memory())


def _round_up(tokens: int) -> int:
    return -(-tokens // _QUANTUM) * _QUANTUM
