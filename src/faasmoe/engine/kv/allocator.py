"""Counts the KV cache memory that sequences and kept prefixes may take, in bytes, and reserves it for their states."""

from __future__ import annotations

import logging
from collections import Counter
from itertools import islice

import numpy as np

from faasmoe.engine.kv.prefix_cache import LEAST, Prefix, PrefixCache, Tokens, common_length
from faasmoe.engine.kv.snapshots import at_border, before_border
from faasmoe.engine.sequence import Sequence
from faasmoe.errors import OptionError, brief
from faasmoe.model.state.sequence_state import UNLIMITED, SequenceState, StateSpec
from faasmoe.protocol.config import EngineOptions
from faasmoe.util.machine import available_memory

log = logging.getLogger(__name__)

_SHARE = 0.2  # of available memory, unless set: the rest is for instances, and for weights in the page cache
_QUANTUM = 16  # tokens: states grow by no less, because growing copies them
_MOST_DONORS = 64  # running sequences that are compared with one that begins
_SPARE = 4  # states grow by a quarter at least, if there is memory


class KVAllocator:
    """Memory of `total` bytes, shared by sequences and by prefixes that are kept for reuse.

    What counts is the memory that is reserved for a state, not what its tensors take yet. Prefixes are evicted, the
    least recently used first, when a sequence needs their memory.
    """

    def __init__(self, total: int = UNLIMITED, spec: StateSpec | None = None) -> None:
        """`spec` says what a sequence of the model keeps; by default nothing, which takes no memory."""
        self.total = total
        self.spec = spec or StateSpec({})
        self.prefixes = PrefixCache(self.spec)
        self._held: Counter[str] = Counter()  # bytes of sequences, by tenant
        self._began: dict[str, dict[Sequence, Tokens]] = {}  # a tenant's sequences, and what they began with

    @classmethod
    def of(cls, options: EngineOptions, spec: StateSpec) -> KVAllocator:
        """The memory that `options` give a model whose sequences keep what `spec` says.

        Raises `OptionError` if that is not enough for a token.
        """
        nbytes = budget(options)
        if not spec.tokens_within(nbytes):
            raise OptionError(
                f"kv_cache_bytes is {nbytes}: must be {spec.nbytes(1)} at least, for one token of this model"
            )
        return cls(nbytes, spec)

    @property
    def used(self) -> int:
        """Bytes that are reserved, for sequences and for prefixes."""
        return self._held.total() + self.prefixes.nbytes

    def held(self, tenant: str) -> int:
        """Bytes that are reserved for a tenant's sequences."""
        return self._held[tenant]

    def missing(self, sequence: Sequence, tokens: int) -> int:
        """Bytes that must be taken from other sequences before `sequence` can have memory for `tokens` tokens."""
        free = self.total - self._held.total()  # prefixes are evicted
        nbytes = self.spec.nbytes
        return max(0, nbytes(_least(sequence, tokens)) - nbytes(sequence.capacity) - free)

    def reserve(self, sequence: Sequence, tokens: int) -> None:
        """Reserve memory for at least `tokens` tokens of `sequence`, of which none is `missing`, and some to spare."""
        if tokens <= sequence.capacity:
            return
        best = max(_least(sequence, tokens), min(_round_up(tokens + tokens // _SPARE), sequence.limit))
        held = self.spec.nbytes(sequence.capacity)
        wanted = self.spec.nbytes(best) - held
        free = self.total - self.used
        while free < wanted and (evicted := self.prefixes.evict()):
            free += evicted
        if not sequence.capacity:
            sequence.state = self.spec.allocate()
        sequence.state.reserve(min(best, self.spec.tokens_within(held + free)))
        self._count(sequence, self.spec.nbytes(sequence.capacity) - held)

    def begin(self, sequence: Sequence) -> None:
        """Reserve memory for all tokens of `sequence`, of which none is `missing`, and reuse what is known of them."""
        tokens = np.array(sequence.tokens, dtype=np.int64)
        known = self._reuse(sequence, tokens) if sequence.reusable else 0
        self.reserve(sequence, len(tokens))
        sequence.computed = known
        if not sequence.seen:
            sequence.cached_tokens = known
        self._began.setdefault(sequence.tenant, {})[sequence] = tokens

    def _reuse(self, sequence: Sequence, tokens: Tokens) -> int:
        """Start with what a kept prefix or a running sequence has of `tokens`. Returns how many tokens that are."""
        donor, known = self._donor(sequence.tenant, tokens)
        prefix, common = self.prefixes.find(sequence.tenant, tokens) or (None, 0)
        if donor and known >= max(common, LEAST):
            self.reserve(sequence, len(tokens))
            return self._copy(sequence, donor.state, known)
        if prefix is None:
            return 0
        both = self.spec.nbytes(_least(sequence, len(tokens))) + self.spec.nbytes(prefix.state.capacity)
        fits_beside = both <= self.total - self._held.total()
        # others may reuse it as well
        if fits_beside and (common < len(prefix.tokens) or not self.spec.truncatable):
            self.prefixes.touch(prefix)
            self.reserve(sequence, len(tokens))
            return self._copy(sequence, prefix.state, common)
        self.prefixes.remove(prefix)
        sequence.state = prefix.state
        self._count(sequence, self.spec.nbytes(sequence.capacity))
        return sequence.state.truncate(common)

    def _copy(self, sequence: Sequence, state: SequenceState, tokens: int) -> int:
        """Copy the first `tokens` tokens of `state` to `sequence`. Returns how many it has then: all or none."""
        try:
            return sequence.state.copy_from(state, tokens)
        except (MemoryError, RuntimeError) as error:  # the kernel gives less than was counted on
            log.warning("a KV cache cannot be copied and is computed again: %s", brief(error))
            capacity, sequence.state = sequence.capacity, self.spec.allocate()
            sequence.state.reserve(capacity)
            return 0

    def _donor(self, tenant: str, tokens: Tokens) -> tuple[Sequence | None, int]:
        """Of the sequences that began last, the one with most tokens to reuse for `tokens`, and how many.

        At least one token is left to compute. Sequences with much in common begin together, such as the choices for
        one prompt.
        """
        best, most = None, 0
        for other, its in islice(reversed(self._began.get(tenant, {}).items()), _MOST_DONORS):
            known = self.spec.reusable(other.computed, common_length(its, tokens[:-1]))
            if known > most:
                best, most = other, known
        return best, most

    def most_tokens(self, sequence: Sequence) -> int:
        """Tokens that `sequence` may have in a step: all that it wants, or those before a snapshot is to be taken."""
        return sequence.pending if self.spec.truncatable else min(sequence.pending, before_border(sequence))

    def ran(self, sequence: Sequence) -> None:
        """`sequence` has got tokens in a step. A part of its prompt may be kept for prompts that begin with it."""
        if self.spec.truncatable or not sequence.capacity or not at_border(sequence):
            return
        tokens = sequence.computed
        nbytes, free = self.spec.nbytes(tokens), self.total - self.used
        if nbytes > free + self.prefixes.nbytes:
            return
        while free < nbytes:
            free += self.prefixes.evict()
        state = self.spec.allocate()
        state.reserve(tokens)
        try:
            known = state.copy_from(sequence.state, tokens)
        except (MemoryError, RuntimeError) as error:  # the kernel gives less than was counted on
            log.warning("a part of a prompt is not kept: %s", brief(error))
            return
        if known:
            self.prefixes.add(Prefix(sequence.tenant, np.array(sequence.tokens[:tokens], dtype=np.int64), state))

    def release(self, sequence: Sequence) -> None:
        """Free the memory of `sequence`, which recomputes all its tokens when it gets memory again."""
        self._count(sequence, -self.spec.nbytes(sequence.capacity))
        sequence.state, sequence.computed = SequenceState(), 0
        began = self._began.get(sequence.tenant, {})
        began.pop(sequence, None)
        if not began:
            self._began.pop(sequence.tenant, None)

    def end(self, sequence: Sequence, *, keep: bool) -> None:
        """`sequence` needs its memory no longer. With `keep` its state waits for a request that begins alike."""
        computed, state = sequence.computed, sequence.state
        self.release(sequence)
        if keep and computed >= LEAST:
            tokens = np.array(sequence.tokens[:computed], dtype=np.int64)
            self.prefixes.add(Prefix(sequence.tenant, tokens, state))

    def _count(self, sequence: Sequence, nbytes: int) -> None:
        self._held[sequence.tenant] += nbytes
        if not self._held[sequence.tenant]:
            del self._held[sequence.tenant]


def budget(options: EngineOptions) -> int:
    """Bytes for the KV cache: as set, or a share of the memory that is available now."""
    return options.kv_cache_bytes or int(_SHARE * available_memory())


def _least(sequence: Sequence, tokens: int) -> int:
    """Tokens for which memory is reserved at least when `sequence` needs it for `tokens`."""
    return max(tokens, min(_round_up(tokens), sequence.limit))


def _round_up(tokens: int) -> int:
    return -(-tokens // _QUANTUM) * _QUANTUM
