"""Which tokens run in the next step. A plain data structure: no tensors, no sockets, and the clock is given."""

from __future__ import annotations

import heapq
import time
from bisect import insort
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from faasmoe.engine.fair_share import FairShare
from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.sequence import Sequence
from faasmoe.engine.speculation.row_cost import RowCost
from faasmoe.engine.step import ScheduledTokens, Step
from faasmoe.errors import EngineBusy
from faasmoe.protocol.config import EngineOptions

_RATE_OVER = 64  # sequences that began last, from which the rate is measured
_LONGEST_WAIT = 60.0  # seconds that a refused client is told to stay away at most


@dataclass(slots=True)
class _TenantQueue:
    """A tenant's running sequences, which have memory, and waiting ones, which have none; each list ordered by rank."""

    tenant: str
    started: list[Sequence] = field(default_factory=list)
    waiting: list[Sequence] = field(default_factory=list)
    # the rest holds for one step
    cursor: int = 0  # index of the next in `started`
    blocked: bool = False  # nothing more is started

    @property
    def first(self) -> int:
        """Arrival of the sequence that goes before all its others."""
        return min((*self.started[:1], *self.waiting[:1]), key=_rank).arrival

    @property
    def next(self) -> Sequence | None:
        """The next running sequence; None if a waiting sequence precedes it and may be tried."""
        sequence = self.started[self.cursor] if self.cursor < len(self.started) else None
        if self.blocked or not self.waiting:
            return sequence
        return sequence if sequence and sequence.rank < self.waiting[0].rank else None

    def __len__(self) -> int:
        return len(self.started) + len(self.waiting)


_rank = attrgetter("rank")


class Scheduler:
    """Decodes and chunks of prompts of many sequences, up to a step's budget, in turns that are fair to tenants.

    Within a tenant, requests of a higher priority first, and then first come, first served. A sequence that needs
    memory may take it from others, which start anew later: the victim is the last of the tenant that is furthest
    over its share. The oldest of all tenants' first sequences takes from anybody and loses to nobody, so it always
    gets on, and each tenant's first is the oldest in turn. Requests of a low priority may wait as long as their
    tenant has others, which is its own choice.
    """

    def __init__(
        self,
        options: EngineOptions | None = None,
        memory: KVAllocator | None = None,
        clock: Callable[[], float] = time.monotonic,
        prompt_budget: PromptBudget | None = None,
    ) -> None:
        self.options = options or EngineOptions()
        self.memory = memory or KVAllocator()
        self.preemptions = 0
        self.drafted = self.accepted = 0  # tokens of drafts, and those of them that were right
        self._row_cost = RowCost()
        self._prompt_budget = prompt_budget or PromptBudget(
            self.options.inter_token_latency, self.options.max_step_tokens
        )
        self._clock = clock
        self._fair = FairShare()
        self._queues: dict[str, _TenantQueue] = {}  # of tenants that have sequences
        self._satisfied: set[str] = set()  # tenants of which the last step took all it could
        self._arrivals = 0
        self._begun: deque[float] = deque(maxlen=_RATE_OVER)  # when sequences took part for the first time

    def add(self, sequence: Sequence) -> None:
        """Let `sequence` take part from the next step on. Its tenant has its weight from now on.

        Raises `EngineBusy` if too many wait; a tenant of whom nobody waits is let in even so. Raises `OptionError` if
        the weight is not a positive number.
        """
        queue = self._queues.get(sequence.tenant)
        if self.waiting >= self.options.max_waiting and queue and queue.waiting:
            raise EngineBusy(f"{self.waiting} requests are waiting already", retry_after=self.retry_after())
        self._fair.set_weight(sequence.tenant, sequence.weight)
        if queue is None:
            queue = self._queues[sequence.tenant] = _TenantQueue(sequence.tenant)
            self._fair.join(sequence.tenant)
        self._arrivals += 1
        sequence.arrival = self._arrivals
        sequence.submitted = self._clock()
        insort(queue.waiting, sequence, key=_rank)

    def remove(self, sequence: Sequence, *, keep: bool = True) -> None:
        """Forget `sequence`, wherever it is. `keep` says whether its state may go to the prefix cache."""
        queue = self._queues.get(sequence.tenant)
        if queue and sequence in queue.started:
            queue.started.remove(sequence)
            self.memory.end(sequence, keep=keep)
        elif queue and sequence in queue.waiting:
            queue.waiting.remove(sequence)
        if queue is not None and not len(queue):
            del self._queues[sequence.tenant]
            self._satisfied.discard(sequence.tenant)
            self._fair.leave(sequence.tenant)

    @property
    def waiting(self) -> int:
        """Sequences that hold no memory: not started yet, or preempted."""
        return sum(len(queue.waiting) for queue in self._queues.values())

    @property
    def running(self) -> int:
        """Sequences that hold memory."""
        return sum(len(queue.started) for queue in self._queues.values())

    def retry_after(self) -> float:
        """Seconds in which those that wait now will have begun, at the rate of late; 1 to `_LONGEST_WAIT`."""
        if len(self._begun) < 2:
            return 1.0
        seconds = self._clock() - self._begun[0]
        return min(max(1.0, self.waiting * seconds / len(self._begun)), _LONGEST_WAIT)

    def next_step(self) -> list[ScheduledTokens]:
        """The tokens of the next step, if any. Reserves memory for them, and preempts sequences for it."""
        decodes = 0
        for queue in self._queues.values():
            queue.cursor, queue.blocked = 0, False
            decodes += sum(sequence.pending == 1 for sequence in queue.started)
            if queue.tenant in self._satisfied:
                self._fair.join(queue.tenant)
        step = Step(self.options, decodes, self._prompt_budget.tokens)
        oldest = min((queue.first for queue in self._queues.values()), default=0)
        turns = [(self._fair.tag(tenant), queue.first, queue) for tenant, queue in self._queues.items()]
        heapq.heapify(turns)
        while turns and not step.full:
            _, first, queue = turns[0]
            if self._serve(queue, step, oldest):
                heapq.heapreplace(turns, (self._fair.tag(queue.tenant), first, queue))
            else:
                heapq.heappop(turns)
        self._speculate(step)
        return self._planned(step)

    def verified(self, sequence: Sequence, drafted: int, accepted: int) -> None:
        """A step has accepted so many of the tokens that were drafted for `sequence`; they are part of its share."""
        self.drafted += drafted
        self.accepted += accepted
        self._fair.charge(sequence.tenant, accepted)

    def take_served(self) -> dict[str, int]:
        """Tokens that each tenant has got since the last time."""
        return self._fair.take_served()

    def served_elsewhere(self, tokens: Mapping[str, int]) -> None:
        """Other schedulers have served these tokens to tenants, whose share here is less by that."""
        for tenant, count in tokens.items():
            self._fair.charge_elsewhere(tenant, count)

    def took(self, tokens: int, prompt_tokens: int, seconds: float) -> None:
        """A step of `tokens`, of which `prompt_tokens` were of prompts, took `seconds`: later ones are sized by it."""
        if prompt_tokens:
            self._prompt_budget.note(prompt_tokens, seconds, beside_decodes=prompt_tokens < tokens)
        else:
            self._row_cost.note(tokens, seconds)

    def _speculate(self, step: Step) -> None:
        """Let sequences that decode verify drafts, with what nobody else wants of the step and of the memory."""
        drafting = [sequence for sequence in step.counts if sequence.speculator and sequence.pending == 1]
        if not drafting:
            return
        share = self._row_cost.share(sum(sequence.pending == 1 for sequence in step.counts))
        for sequence in drafting:
            most = min(step.left, sequence.limit - len(sequence.tokens) - 1)  # one more is picked behind them
            draft = sequence.draft(most, share)
            tokens = len(sequence.tokens) + len(draft)
            if draft and not self.memory.missing(sequence, tokens):
                self.memory.reserve(sequence, tokens)
                step.draft(sequence, draft)

    def _planned(self, step: Step) -> list[ScheduledTokens]:
        work = step.work()
        hungry = {queue.tenant for queue in self._queues.values() if queue.waiting}
        for queue in self._queues.values():
            if any(step.counts.get(sequence) != sequence.pending for sequence in queue.started):
                hungry.add(queue.tenant)
        self._satisfied = self._queues.keys() - hungry
        now = self._clock()
        for w in work:
            if w.sequence.started is None:
                w.sequence.started = now
                self._begun.append(now)
        return work

    def _serve(self, queue: _TenantQueue, step: Step, oldest: int) -> bool:
        """Give tokens to the next of a tenant's sequences that can have some. Returns whether there was one."""
        while sequence := queue.next:
            queue.cursor += 1
            count = self._most_tokens(sequence, step)
            if count and self._make_room(sequence, sequence.computed + count, step, oldest):
                self.memory.reserve(sequence, sequence.computed + count)
                self._give(sequence, count, step)
                return True
        if queue.blocked or not queue.waiting:
            return False
        if self._start(queue, step, oldest):
            return True
        queue.blocked = True
        return self._serve(queue, step, oldest)  # those after it that have memory

    def _start(self, queue: _TenantQueue, step: Step, oldest: int) -> bool:
        """Let the first that waits begin. Returns whether it could."""
        sequence = queue.waiting[0]
        if not step.room(sequence.pending) or not self._make_room(sequence, len(sequence.tokens), step, oldest):
            return False
        self.memory.begin(sequence)
        queue.waiting.remove(sequence)
        insort(queue.started, sequence, key=_rank)
        queue.cursor += 1
        self._give(sequence, self._most_tokens(sequence, step), step)
        return True

    def _most_tokens(self, sequence: Sequence, step: Step) -> int:
        return min(step.room(sequence.pending), self.memory.most_tokens(sequence))

    def _give(self, sequence: Sequence, count: int, step: Step) -> None:
        step.add(sequence, count)
        self._fair.serve(sequence.tenant, count)

    def _make_room(self, sequence: Sequence, tokens: int, step: Step, oldest: int) -> bool:
        """Preempt others, if that helps, so that `sequence` can have memory for `tokens`. Returns whether it can."""
        missing = self.memory.missing(sequence, tokens)
        if not missing:
            return True
        victims = self._victims(sequence, tokens, missing, oldest)
        for victim in victims:
            queue = self._queues[victim.tenant]
            queue.started.remove(victim)
            insort(queue.waiting, victim, key=_rank)
            queue.blocked = True
            self._fair.refund(victim.tenant, step.drop(victim))
            self.memory.release(victim)
        self.preemptions += len(victims)
        return bool(victims)

    def _victims(self, sequence: Sequence, tokens: int, missing: int, oldest: int) -> list[Sequence]:
        """The sequences to preempt so that `sequence` gets the missing memory; empty if that is not possible.

        One after the other the last of the tenant that is furthest over its share then. Another tenant's goes
        only if that tenant keeps as large a part, or has more than twice as much: two tenants must not take the
        same memory from each other in turns.
        """
        left = {tenant: list(queue.started) for tenant, queue in self._queues.items()}
        held = {tenant: self.memory.held(tenant) for tenant in left}
        nbytes = self.memory.spec.nbytes
        held[sequence.tenant] += nbytes(tokens) - nbytes(sequence.capacity)
        victims: list[Sequence] = []

        def level(tenant: str, less: int = 0) -> float:
            return (held[tenant] - less) / self._fair.weight(tenant)

        def may_lose(tenant: str) -> bool:
            if not left[tenant] or left[tenant][-1] is sequence or left[tenant][-1].arrival == oldest:
                return False
            if sequence.arrival == oldest:
                return True
            last, wanted = left[tenant][-1], level(sequence.tenant)
            if tenant == sequence.tenant:
                return last.rank > sequence.rank
            return level(tenant) > 2 * wanted or level(tenant, nbytes(last.capacity)) >= wanted

        while missing > 0:
            tenants = [tenant for tenant in left if may_lose(tenant)]
            if not tenants:
                return []
            furthest = max(tenants, key=level)
            victims.append(left[furthest].pop())
            freed = nbytes(victims[-1].capacity)
            held[furthest] -= freed
            missing -= freed
        return victims
