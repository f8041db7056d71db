"""Sequences without a model, and steps that are taken at once."""

from __future__ import annotations

import torch

from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.sequence import Sequence
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


def run(scheduler: Scheduler) -> list[tuple[str, int]]:
    """One step, with its effects applied: a token is picked where all others are in. Returns what ran."""
    work = scheduler.next_step()
    for w in work:
        complete = w.completes
        w.sequence.advance(w.certain)
        if complete:
            w.sequence.tokens.append(len(w.sequence.tokens))
    return [(w.sequence.id, w.count) for w in work]


def ended(one: Sequence) -> bool:
    return len(one.tokens) >= one.limit
