"""A step as the model takes it: the tokens of many sequences in one row."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from faasmoe.engine.request_state import RequestState
from faasmoe.engine.sequence import Sequence
from faasmoe.engine.step import ScheduledTokens
from faasmoe.errors import ServingError
from faasmoe.model.dense.attention import Span
from faasmoe.model.state.sequence_state import SequenceState
from faasmoe.protocol.errors import NOT_FINITE


@dataclass(frozen=True, slots=True)
class LogitRows:
    """The rows of the step's logits that belong to a request: `count` of them from `first` on.

    The last `drafted` are of tokens of a draft.
    """

    running: RequestState
    first: int
    count: int
    drafted: int

    def usable(self, finite: Many[bool]) -> slice:
        """The rows before the first that is not `finite`. Raises `ServingError` if others than a draft's are not.

        What comes of a guess counts only if the guess is right, and then the next step finds it.
        """
        its = finite[self.first : self.first + self.count]
        count = its.index(False) if False in its else self.count
        if count < self.count - self.drafted:
            raise ServingError(NOT_FINITE)
        return slice(self.first, self.first + count)


@dataclass(slots=True, kw_only=True)
class Batch:
    """Tokens, their positions and whose they are, and the rows whose logits somebody needs."""

    work: list[ScheduledTokens]
    members: list[RequestState]  # in the order of work
    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    logit_rows: list[LogitRows] = field(default_factory=list)
    prompt_tokens: int = 0  # and those that run again after a preemption
    # with the tokens in the state
    _before: list[tuple[Sequence, SequenceState, int]] = field(default_factory=list)

    @classmethod
    def of(cls, work: list[ScheduledTokens], members: Iterable[RequestState]) -> Batch:
        """The row of `work`, each of which belongs to one of `members`, in the same order."""
        batch = cls(work=work, members=list(members))
        for w, running in zip(work, batch.members, strict=True):
            batch._add(w, running, running.wanted(w))
        return batch

    def _add(self, work: ScheduledTokens, running: RequestState, offsets: Collection[int]) -> None:
        sequence, start = work.sequence, work.sequence.computed
        if offsets:
            self.logit_rows.append(LogitRows(running, len(self.wanted), len(offsets), len(work.draft)))
            self.wanted += [len(self.tokens) + offset for offset in offsets]
        if start < sequence.prompt_length or work.certain > 1:
            self.prompt_tokens += work.count
        self.tokens += sequence.tokens[start : start + work.certain]
        self.tokens += work.draft
        self.positions += range(start, start + work.count)
        self.spans.append(Span(sequence.state, work.count, apart=bool(work.draft)))
        self._before.append((sequence, sequence.state, start))

    @property
    def speculates(self) -> bool:
        """True if it has a draft."""
        return any(work.draft for work in self.work)

    def restore(self) -> None:
        """Undo what the model has written to states before it failed.

        A sequence whose state cannot be truncated loses all of it, and `part` has it recompute the lost tokens.
        """
        for sequence, state, tokens in self._before:
            left = state.truncate(tokens)
            if left < tokens and sequence.state is state:  # it has not been cancelled meanwhile
                sequence.computed = left

    def part(self, members: Collection[int]) -> Batch:
        """The members at `places` of a batch that was restored, with the same tokens.

        Tokens that `restore` has lost are run in the same step, so that a token that the model cannot run is in it.
        Drafts are left out.
        """
        work = []
        for i in members:
            sequence, _, start = self._before[i]
            work.append(ScheduledTokens(sequence, start + self.work[i].certain - sequence.computed))
        return Batch.of(work, [self.members[i] for i in members])

    def advance(self) -> None:
        """The model has run all of it. Drafts are settled when their logits have been looked at."""
        for work in self.work:
            work.sequence.advance(work.certain)
