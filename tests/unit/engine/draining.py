"""Requests that hypothesis draws, and steps until all sequences have ended."""

from __future__ import annotations

from hypothesis import strategies as st

from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.sequence import Sequence
from tests.unit.engine.sequences import apply, ended

tenants = st.sampled_from(["a", "b", "c"])
requests = st.lists(
    st.tuples(tenants, st.integers(1, 40), st.integers(1, 12), st.integers(-1, 1)), min_size=1, max_size=14
)


def firsts(sequences: list[Sequence]) -> list[Sequence]:
    """Of each tenant the one that goes before its others."""
    left = sorted((s for s in sequences if not ended(s)), key=lambda s: s.rank, reverse=True)
    return list({s.tenant: s for s in left}.values())


def drain(scheduler: Scheduler, sequences: list[Sequence], most_steps: int) -> None:
    """Run until all have ended; what holds at every step is checked."""
    options, memory = scheduler.options, scheduler.memory
    for _ in range(most_steps):
        oldest = min(firsts(sequences), key=lambda s: s.arrival, default=None)
        before = oldest.computed if oldest else 0
        new = {s for s in sequences if s.started is None}
        work = scheduler.next_step()
        if not work:
            break
        for w in work:
            if w.sequence in new:  # nobody of its tenant who goes before it waits for the first time
                assert not any(s.started is None and s.tenant == w.sequence.tenant and s.rank < w.sequence.rank
                               for s in sequences)  # fmt: skip
        assert sum(w.count for w in work) <= options.max_step_tokens
        assert len({w.sequence for w in work}) == len(work) <= options.max_sequences
        assert memory.used <= memory.total
        assert all(w.sequence.computed + w.count <= w.sequence.capacity for w in work)
        held = sum(memory.spec.nbytes(s.capacity) for s in sequences)
        assert memory.used == held + memory.prefixes.nbytes
        assert oldest is not None
        assert oldest.computed >= before  # nobody takes its memory
        apply(scheduler, work)
        for w in work:
            if ended(w.sequence):
                scheduler.remove(w.sequence)
    assert all(ended(s) for s in sequences)
