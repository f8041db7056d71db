"""Sequences without a model, and steps that are taken at once."""

from __future__ import annotations

import torch

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.sequence import Sequence
from faasmoe.engine.step import ScheduledTokens
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.request import GenerationRequest, SamplingParams

ONE_NUMBER = KVCacheSpec(1, 1, 1, torch.float32, torch.float32)  # a key and a value of a token
TWO_LAYERS = StateSpec({0: ONE_NUMBER, 1: ONE_NUMBER})
A_TOKEN = TWO_LAYERS.nbytes(1)  # bytes


def memory_for(tokens: int) -> KVAllocator:
    """Memory for so many tokens of sequences with `TWO_LAYERS`."""
    return KVAllocator(tokens * A_TOKEN, TWO_LAYERS)


def sequence(
    name: str, prompt: int | list[int], *, tenant: str = "", more: int = 16, weight: float = 1.0, priority: int = 0
) -> Sequence:
    """A prompt of this many tokens, or of these."""
    tokens = tuple(range(prompt)) if isinstance(prompt, int) else tuple(prompt)
    return Sequence(
        GenerationRequest(
            name, tokens, SamplingParams(max_tokens=more), tenant=tenant, weight=weight, priority=priority
        )
    )


class Guesses:
    """In the place of a `Speculator`: guesses as many tokens as it may, of which so many are right."""

    def __init__(self, count: int, right: int) -> None:
        self.count, self.right = count, right

    def draft(self, most: int, row_share: float) -> tuple[int, ...]:
        assert 0 <= row_share <= 1
        return (0,) * min(most, self.count)

    def note(self, token: int) -> None:
        pass


def apply(scheduler: Scheduler, work: list[ScheduledTokens]) -> None:
    """The effects of a step: a token is picked where all others are in, and those of a draft that are right."""
    for w in work:
        complete = w.completes
        w.sequence.advance(w.certain)
        if complete:
            take(scheduler, w)


def take(scheduler: Scheduler, work: ScheduledTokens) -> None:
    its = work.sequence
    right = min(len(work.draft), its.speculator.right) if work.draft else 0
    its.tokens += range(len(its.tokens), len(its.tokens) + 1 + right)
    its.advance(right)
    scheduler.verified(its, len(work.draft), right)


def step(scheduler: Scheduler) -> list[ScheduledTokens]:
    """One step, with its effects applied. Returns what ran."""
    work = scheduler.next_step()
    apply(scheduler, work)
    return work


def run(scheduler: Scheduler) -> list[tuple[str, int]]:
    """One step. Returns the sequences that ran and how many tokens of each."""
    return [(w.sequence.id, w.count) for w in step(scheduler)]


def ended(one: Sequence) -> bool:
    return len(one.tokens) >= one.limit
