from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.sequence import Sequence
from faasmoe.engine.step import ScheduledTokens
from faasmoe.errors import EngineBusy
from faasmoe.protocol.config import EngineOptions
from tests.unit.engine.sequences import A_TOKEN, ended, memory_for, run, sequence


def test_decodes_go_on_beside_chunks_of_prompts() -> None:
    scheduler = Scheduler(EngineOptions(max_step_tokens=8), prompt_budget=PromptBudget(1.0, most=4))
    scheduler.add(sequence("long", 20))
    assert run(scheduler) == [("long", 8)]
    assert run(scheduler) == [("long", 8)]
    scheduler.add(sequence("short", 3))
    assert run(scheduler) == [("long", 4), ("short", 3)]
    scheduler.add(sequence("late", 10))
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 4)]
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 4)]
    assert run(scheduler) == [("long", 1), ("short", 1), ("late", 2)]


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0.0, 0.2), st.floats(1e-5, 0.02), st.floats(1e-4, 0.02), st.integers(1, 8), st.integers(256, 1024)
)
def test_prompts_beside_decodes_end_and_leave_gaps_as_asked(
    reading: float, a_prompt_token: float, a_decode: float, decodes: int, most: int
) -> None:
    """Steps take `reading` seconds, and more for each token."""
    options = EngineOptions(max_step_tokens=most, inter_token_latency=0.25)
    now = 0.0
    scheduler = Scheduler(options, clock=lambda: now)
    talking = [sequence(f"talks{i}", 1, tenant=f"talks{i}", more=10_000) for i in range(decodes)]
    for s in talking:
        scheduler.add(s)
    run(scheduler)
    asking = sequence("asks", 20_000, tenant="asks", more=1)
    scheduler.add(asking)
    gaps, chunks = [], []
    while not ended(asking):
        work = dict(run(scheduler))
        assert all(work[s.id] == 1 for s in talking)
        chunks.append(work["asks"])
        gaps.append(reading + a_prompt_token * work["asks"] + a_decode * decodes)
        now += gaps[-1]
        scheduler.took(sum(work.values()), work["asks"], gaps[-1])
    assert min(chunks[:-1]) >= 64
    # while a gap is off by a tenth, a step moves the budget by a twentieth: from 128 tokens 15 steps to 64, 40 to 1024
    for step, (gap, chunk) in enumerate(zip(gaps[:-1], chunks[:-1], strict=True)):
        assert gap < 1.1 * options.inter_token_latency or chunk <= 65 or step < 15
        assert gap > 0.9 * options.inter_token_latency or chunk == most - decodes or step < 40


def test_too_many_sequences_wait_and_then_are_refused() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=1, max_waiting=1))
    first, second = sequence("a", 1), sequence("b", 1)
    scheduler.add(first)
    assert run(scheduler) == [("a", 1)]
    scheduler.add(second)
    assert (scheduler.running, scheduler.waiting) == (1, 1)
    with pytest.raises(EngineBusy) as refusal:
        scheduler.add(sequence("c", 1))
    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after >= 1
    scheduler.add(sequence("d", 1, tenant="of whom nobody waits"))
    scheduler.remove(first)
    assert set(run(scheduler)) < {("b", 1), ("d", 1)}
    scheduler.remove(second)
    scheduler.remove(second)  # twice is fine
    assert run(scheduler) == [("d", 1)]


def test_a_refused_client_is_told_when_those_before_it_will_have_begun() -> None:
    now = [100.0]
    scheduler = Scheduler(EngineOptions(max_sequences=1, max_waiting=10), clock=lambda: now[0])
    waiting = [sequence(str(i), 1, more=1) for i in range(14)]
    for s in waiting[:5]:
        scheduler.add(s)
    for s in waiting[:4]:  # one in two seconds
        assert run(scheduler) == [(s.id, 1)]
        scheduler.remove(s)
        now[0] += 2
    assert waiting[3].queue_seconds == 6
    assert waiting[4].queue_seconds == 0
    for s in waiting[5:]:
        scheduler.add(s)
    assert scheduler.retry_after() == 2 * 10


def firsts(sequences: list[Sequence]) -> list[Sequence]:
    """Of each tenant the one that goes before its others."""
    left = sorted((s for s in sequences if not ended(s)), key=lambda s: s.rank, reverse=True)
    return list({s.tenant: s for s in left}.values())


class Guesses:
    """In the place of a `Speculator`: guesses as many tokens as it may, of which so many are right."""

    def __init__(self, count: int, right: int) -> None:
        self.count, self.right = count, right

    def draft(self, most: int, row_share: float) -> tuple[int, ...]:
        assert 0 <= row_share <= 1
        return (0,) * min(most, self.count)

    def note(self, token: int) -> None:
        pass


def take(scheduler: Scheduler, work: ScheduledTokens) -> int:
    """Pick a token, and those of the draft that are right. Returns how many these are."""
    its = work.sequence
    right = min(len(work.draft), its.speculator.right) if work.draft else 0
    its.tokens += [0] * (1 + right)
    its.advance(right)
    scheduler.verified(its, len(work.draft), right)
    return right


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
        for w in work:
            complete = w.completes
            w.sequence.advance(w.certain)
            if complete:
                take(scheduler, w)
            if ended(w.sequence):
                scheduler.remove(w.sequence)
    assert all(ended(s) for s in sequences)


tenants = st.sampled_from(["a", "b", "c"])
requests = st.lists(
    st.tuples(tenants, st.integers(1, 40), st.integers(1, 12), st.integers(-1, 1)), min_size=1, max_size=14
)


@given(requests, st.integers(1, 16), st.integers(1, 4), st.integers(1, 16))
def test_every_sequence_ends_within_budget(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, prompts: int
) -> None:
    scheduler = Scheduler(
        EngineOptions(max_step_tokens=budget, max_sequences=most), prompt_budget=PromptBudget(1.0, most=prompts)
    )
    sequences = [sequence(str(i), n, tenant=t, more=m, priority=p) for i, (t, n, m, p) in enumerate(asked)]
    for s in sequences:
        scheduler.add(s)
    drain(scheduler, sequences, sum(s.limit for s in sequences))
    assert all(s.seen == s.limit - 1 for s in sequences)
    assert (scheduler.running, scheduler.waiting, scheduler.preemptions) == (0, 0, 0)


@settings(max_examples=300)
@given(requests, st.integers(1, 64), st.integers(1, 6), st.floats(0.2, 5), st.data())
def test_every_sequence_ends_however_little_memory_there_is(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, weight: float, data: st.DataObject
) -> None:
    largest = max(n + m for _, n, m, _ in asked)
    memory = memory_for(data.draw(st.integers(largest, 3 * largest)))
    scheduler = Scheduler(EngineOptions(max_step_tokens=budget, max_sequences=most), memory)
    sequences, left = [], list(enumerate(asked))
    while left:  # they arrive while others run, and some are cancelled
        i, (tenant, prompt, more, priority) = left.pop()
        beginning = data.draw(st.integers(0, 1))
        its = {"tenant": tenant, "more": more, "priority": priority, "weight": weight if tenant == "a" else 1.0}
        s = sequence(str(i), [beginning, *range(1, prompt)], **its)
        scheduler.add(s)
        if data.draw(st.booleans()):
            run(scheduler)
        for one in [*sequences, s]:
            if ended(one):
                scheduler.remove(one)
        if data.draw(st.integers(0, 5)) == 0:
            scheduler.remove(s)
        else:
            sequences.append(s)
    for one in sequences:
        if ended(one):
            scheduler.remove(one)
    drain(scheduler, sequences, 50 * sum(s.limit for s in sequences) + 1)
    assert memory.used == memory.prefixes.nbytes


@settings(max_examples=200)
@given(requests, st.integers(1, 24), st.integers(1, 6), st.data())
def test_drafts_take_what_is_left(
    asked: list[tuple[str, int, int, int]], budget: int, most: int, data: st.DataObject
) -> None:
    largest = max(n + m for _, n, m, _ in asked)
    memory = memory_for(data.draw(st.integers(largest, 3 * largest)))
    scheduler = Scheduler(EngineOptions(max_step_tokens=budget, max_sequences=most), memory)
    sequences = [sequence(str(i), n, tenant=t, more=m, priority=p) for i, (t, n, m, p) in enumerate(asked)]
    for s in sequences:
        s.speculator = Guesses(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5)))
        scheduler.add(s)
    drain(scheduler, sequences, 50 * sum(s.limit for s in sequences) + 1)
    assert memory.used == memory.prefixes.nbytes


def test_a_draft_takes_no_tokens_from_others_and_never_goes_beyond_the_limit() -> None:
    scheduler = Scheduler(EngineOptions(max_step_tokens=8))
    first, second = sequence("a", 3, more=10), sequence("b", 2, more=4)
    first.speculator, second.speculator = Guesses(5, 5), Guesses(5, 5)
    scheduler.add(first)
    scheduler.add(second)
    assert [(w.count, w.draft) for w in step(scheduler)] == [(3, ()), (2, ())]
    assert [(w.count, len(w.draft)) for w in step(scheduler)] == [(6, 5), (2, 1)]  # of 8
    assert (len(first.tokens), len(second.tokens)) == (3 + 1 + 6, 2 + 1 + 2)
    assert [(w.count, len(w.draft)) for w in step(scheduler)] == [(3, 2), (1, 0)]
    assert ended(first)
    assert ended(second)
    assert (scheduler.drafted, scheduler.accepted) == (8, 8)


def test_for_a_draft_nobody_is_preempted() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(100))
    old, young = sequence("old", 20, more=40), sequence("young", [9, *range(19)], more=40)
    for s in (old, young):
        scheduler.add(s)
    step(scheduler)
    scheduler.memory.total = scheduler.memory.used
    while old.pending + old.computed + 5 <= old.capacity:
        step(scheduler)
    old.speculator = Guesses(5, 0)
    assert [(w.sequence.id, w.count) for w in step(scheduler)] == [("old", 1), ("young", 1)]
    assert scheduler.preemptions == 0


def step(scheduler: Scheduler) -> list[ScheduledTokens]:
    """Run one step, with its effects applied."""
    work = scheduler.next_step()
    for w in work:
        complete = w.completes
        w.sequence.advance(w.certain)
        if complete:
            take(scheduler, w)
    return work


def test_tokens_that_come_of_drafts_are_part_of_a_tenants_share() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=2))
    got: Counter[str] = Counter()
    for i in range(6):
        for tenant in "ab":
            s = sequence(f"{tenant}{i}", [100 * i + ord(tenant), 1], tenant=tenant, more=4000)
            s.speculator = Guesses(3, 3) if tenant == "a" else None
            scheduler.add(s)
    for _ in range(300):
        for w in step(scheduler):
            got[w.sequence.tenant] += w.certain + len(w.draft)
    assert got["a"] / got["b"] == pytest.approx(1, rel=0.1)


def saturate(
    scheduler: Scheduler, steps: int, prompt: int, more: int, tenants: str, priorities: int = 1, **weights: float
) -> Counter[str]:
    """Tokens that each tenant's sequences got, with always twenty of each there, in so many classes."""
    got: Counter[str] = Counter()
    numbers = count(1_000_000)

    def another(name: str, tenant: str, priority: int) -> None:
        its = {"tenant": tenant, "more": more, "priority": priority, "weight": weights.get(tenant, 1.0)}
        # no two begin alike, or a tenant has less to do than its weight lets it
        scheduler.add(sequence(name, [next(numbers), *range(1, prompt)], **its))

    for i in range(20):
        for tenant in tenants:
            another(f"{tenant}{i}", tenant, i % priorities)
    for _ in range(steps):
        work = scheduler.next_step()
        for w in work:
            got[w.sequence.tenant] += w.count
            complete = w.completes
            w.sequence.advance(w.count)
            if complete:
                w.sequence.tokens.append(0)
            if ended(w.sequence):
                scheduler.remove(w.sequence, keep=False)
                another(w.sequence.id, w.sequence.tenant, w.sequence.priority)
    return got


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 8), st.sampled_from([None, 400, 1000]))
@example(36, 19, 8, 400)
def test_two_saturated_tenants_get_tokens_as_their_weights(
    prompt: int, more: int, most: int, memory: int | None
) -> None:
    options = EngineOptions(max_step_tokens=64, max_sequences=most)
    scheduler = Scheduler(
        options, memory_for(memory) if memory else None, prompt_budget=PromptBudget(1.0, most=16)
    )
    got = saturate(scheduler, 1500, prompt, more, "ab", a=3.0)
    assert got["a"] / got["b"] == pytest.approx(3, rel=0.05)


def test_the_newest_requests_weight_holds() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=8))
    got = saturate(scheduler, 500, 10, 10, "ab")
    assert got["a"] / got["b"] == pytest.approx(1, rel=0.05)
    got = saturate(scheduler, 500, 10, 10, "ab", b=4.0)
    assert got["b"] / got["a"] == pytest.approx(4, rel=0.05)


def test_many_that_wait_do_not_delay_another_tenants_first() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=4))
    for i in range(50):
        scheduler.add(sequence(f"a{i}", 5, tenant="a", more=100))
    for _ in range(10):
        run(scheduler)
    scheduler.add(sequence("b", 5, tenant="b"))
    assert ("b", 5) in run(scheduler)
    for _ in range(5):
        assert ("b", 1) in run(scheduler)


def test_many_that_hold_all_memory_do_not_delay_another_tenants_first() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(160))
    for i in range(50):
        scheduler.add(sequence(f"a{i}", 16, tenant="a", more=16))
    for _ in range(3):
        run(scheduler)
    assert scheduler.memory.used == 160 * A_TOKEN
    scheduler.add(sequence("b", 20, tenant="b"))
    assert ("b", 20) in run(scheduler)
    assert 1 <= scheduler.preemptions <= 2


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from([None, 400]), st.integers(2, 8))
def test_classes_of_one_tenant_are_no_other_tenants_concern(classes: int, memory: int | None, most: int) -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=most), memory_for(memory) if memory else None)
    for i in range(20):  # with nothing to do but wait, in the end
        scheduler.add(sequence(f"low{i}", 10, tenant="a", more=10, priority=-1))
    got = saturate(scheduler, 500, 10, 10, "ab", priorities=classes)
    assert got["b"] / got["a"] == pytest.approx(1, rel=0.1)


def test_a_higher_priority_goes_first_whatever_its_tenant_has_started() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=2), memory_for(80))
    low = [sequence(f"low{i}", 20, more=20) for i in range(3)]
    for s in low:
        scheduler.add(s)
    assert [name for name, _ in run(scheduler)] == ["low0", "low1"]
    high = sequence("high", 20, more=20, priority=1)
    scheduler.add(high)
    assert [name for name, _ in run(scheduler)] == ["high", "low0"]
    assert (scheduler.preemptions, low[1].capacity) == (1, 0)  # the last of its tenant makes room
    while not ended(high):
        assert run(scheduler)[0][0] == "high"
    scheduler.remove(high, keep=False)
    assert [name for name, _ in run(scheduler)] == ["low0", "low1"]


def test_a_tenant_that_idled_has_no_credit() -> None:
    scheduler = Scheduler(EngineOptions(max_sequences=4))
    saturate(scheduler, 300, 10, 10, "a")
    got = saturate(scheduler, 40, 10, 10, "b")
    assert got["b"] / got["a"] == pytest.approx(1, rel=0.2)


def test_the_youngest_of_the_tenant_that_has_most_goes_first() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(128))
    sequences = [sequence(f"{t}{i}", 28, tenant=t, more=36) for t, i in ("a0", "b0", "b1")]
    for s in sequences:
        scheduler.add(s)
    while not scheduler.preemptions:
        run(scheduler)
    a0, b0, b1 = sequences
    assert (a0.computed > 0, b0.computed > 0, b1.computed) == (True, True, 0)
    assert b1.seen > 28
    drain(scheduler, sequences, 200)


def test_a_sequence_that_was_preempted_runs_all_its_tokens_again() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(64))
    old, young = sequence("old", 16, more=40), sequence("young", 16, more=40)
    scheduler.add(old)
    scheduler.add(young)
    while young.capacity or not young.seen:
        run(scheduler)
    tokens = list(young.tokens)
    while not ended(old):
        assert run(scheduler)[0][0] == "old"
    scheduler.remove(old, keep=False)
    assert ("young", len(tokens)) in run(scheduler)
    assert young.tokens[:-1] == tokens
    assert young.seen == young.computed


def test_prefixes_go_before_anybody_is_preempted() -> None:
    scheduler = Scheduler(EngineOptions(), memory_for(64))
    first = sequence("first", 30, more=2)
    scheduler.add(first)
    run(scheduler)
    scheduler.remove(first)
    assert len(scheduler.memory.prefixes) == 1
    scheduler.add(sequence("second", [9, *range(40)], more=20))
    assert run(scheduler) == [("second", 41)]
    assert len(scheduler.memory.prefixes) == 0
    assert scheduler.preemptions == 0
