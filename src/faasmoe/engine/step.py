"""A step as it is scheduled: how many tokens of which sequences."""

from __future__ import annotations

from dataclasses import dataclass

from faasmoe.engine.sequence import Sequence
from faasmoe.protocol.config import EngineOptions


@dataclass(frozen=True, slots=True)
class ScheduledTokens:
    """The next `count` tokens of a sequence, of which the last are a draft: guesses that the step verifies."""

    sequence: Sequence
    count: int
    draft: tuple[int, ...] = ()

    @property
    def certain(self) -> int:
        """The number of tokens that are not guessed."""
        return self.count - len(self.draft)

    @property
    def completes(self) -> bool:
        """True if all pending tokens are included, so that a token can be picked after the step."""
        return self.certain == self.sequence.pending


class Step:
    """A step while it is put together."""

    def __init__(self, options: EngineOptions, decodes: int, prompts: int) -> None:
        """`decodes` is how many sequences can decode, `prompts` the most tokens of prompts beside them."""
        self.counts: dict[Sequence, int] = {}
        self.drafts: dict[Sequence, tuple[int, ...]] = {}  # of sequences that decode
        self.left = options.max_step_tokens
        self._slots = options.max_sequences
        self._prompts = options.max_step_tokens
        if decodes:
            beside = options.max_step_tokens - min(decodes, options.max_sequences)
            self._prompts = max(1, min(prompts, beside))

    @property
    def full(self) -> bool:
        """True if it takes no more tokens or no more sequences."""
        return not self.left or len(self.counts) == self._slots

    def room(self, pending: int) -> int:
        """How many of `pending` tokens of a sequence it takes."""
        return min(pending, self.left, self._prompts if pending > 1 else 1)

    def add(self, sequence: Sequence, count: int) -> None:
        """Take `count` tokens of `sequence`, for which there is room."""
        self.counts[sequence] = count
        self.left -= count
        if sequence.pending > 1:
            self._prompts -= count

    def draft(self, sequence: Sequence, tokens: tuple[int, ...]) -> None:
        """Verify `tokens`, at most those that are left, behind those of `sequence`."""
        self.drafts[sequence] = tokens
        self.left -= len(tokens)

    def drop(self, sequence: Sequence) -> int:
        """Take it out again. Returns the tokens that it would have got; they are not given to others."""
        return self.counts.pop(sequence, 0)

    def work(self) -> list[ScheduledTokens]:
        """The tokens of the finished step."""
        drafts = self.drafts
        if not drafts:
            return [ScheduledTokens(sequence, count) for sequence, count in self.counts.items()]
        return [
            ScheduledTokens(sequence, count + len(draft), draft)
            for sequence, count in self.counts.items()
            for draft in (drafts.get(sequence, ()),)
        ]
