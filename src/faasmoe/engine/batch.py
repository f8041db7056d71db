"""A step as the model takes it: the tokens of many sequences in one row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from faasmoe.engine.kv.cache import KVCache
from faasmoe.engine.request_state import RequestState
from faasmoe.engine.scheduler import Work
from faasmoe.model.dense.attention import Span


@dataclass(frozen=True, slots=True)
class Taker:
    """Who gets which of the step's logits."""

    running: RequestState
    first: int
    count: int


@dataclass(slots=True)
class Batch:
    """Tokens, their positions and whose they are, and the rows whose logits somebody needs."""

    work: list[Work]
    members: list[RequestState]  # in the order of work
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    takers: list[Taker] = field(default_factory=list)
    prompt_tokens: int = 0  # and those that run again after a preemption
    _before: list[tuple[KVCache, int]] = field(default_factory=list)  # caches, and the tokens that they hold

    @classmethod
    def of(cls, work: list[Work], members: Iterable[RequestState]) -> Batch:
        """The row of `work`, each of which belongs to one of `members`, in the same order."""
        batch = cls(work, list(members))
        for w, running in zip(work, batch.members, strict=True):
            batch._add(w, running, running.wanted(w))
        return batch

    def _add(self, work: Work, running: RequestState, offsets: Sequence[int]) -> None:
        sequence, start = work.sequence, work.sequence.computed
        if offsets:
            self.takers.append(Taker(running, len(self.wanted), len(offsets)))
            self.wanted += [len(self.tokens) + offset for offset in offsets]
        if start < sequence.prompt_length or work.count > 1:
            self.prompt_tokens += work.count
        self.tokens += sequence.tokens[start : start + work.count]
        self.positions += range(start, start + work.count)
        self.spans.append(Span(sequence.cache, work.count))
        self._before.append((sequence.cache, start))

    def restore(self) -> None:
        """The model has failed to run it: forget what it has written to caches."""
        for cache, tokens in self._before:
            cache.truncate(tokens)

    def advance(self) -> None:
        """The model has run all of it."""
        for work in self.work:
            work.sequence.advance(work.count)
