"""Which tokens to guess for a sequence, and how many of them are worth a row of a step.

A *draft* is verified by running its tokens behind the last one in the same step. The token that is picked from the
logits before each of them is the sequence's next one, whether it is the guess or not, so the text is the one that
single steps give: with a guess that is always the same this is rejection sampling (Leviathan, Kalman and Matias, ICML
2023), which accepts a guess with its probability, and it draws the same random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from faasmoe.engine.speculation.lookup import PromptLookup

MOST_DRAFT = 8  # tokens: beyond, a row brings little even if nine of ten guesses are right
_MEMORY = 0.9  # that a guess keeps of its weight with the next one: about ten guesses count
_LEAST_GAIN = 1.05  # tokens per second over those of single tokens: what is less may be noise


class Speculator:
    """Drafts for one sequence, and how often its guesses have been right of late.

    Every guess is compared with the token that comes, whether or not it was part of a draft. So a sequence whose
    guesses are wrong costs no rows at all, and one whose guesses become right is noticed.
    """

    def __init__(self, prompt: Sequence[int], limit: int) -> None:
        """`limit` is the most tokens that prompt and completion come to."""
        self._prompt, self._limit = prompt, limit
        self._lookup: PromptLookup | None = None  # made with the first token: who waits for it takes no memory
        self._right, self._wrong = 0.0, 1.0  # guesses, the older the less; the first has to be earned

    @property
    def acceptance(self) -> float:
        """The probability that a guess is right, by those of late."""
        return self._right / (self._right + self._wrong)

    def note(self, token: int) -> None:
        """The sequence goes on with `token`."""
        if self._lookup is None:
            self._lookup = PromptLookup(self._prompt, self._limit)
        right = self._lookup.append(token)
        if right is not None:
            self._right = _MEMORY * self._right + right
            self._wrong = _MEMORY * self._wrong + (not right)

    def draft(self, most: int, row_share: float) -> tuple[int, ...]:
        """Up to `most` guesses for the next step, where a further row costs `row_share` of it (`RowCost.share`)."""
        if self._lookup is None:
            return ()
        return self._lookup.guess(best_length(self.acceptance, row_share, min(most, MOST_DRAFT)))


def best_length(acceptance: float, row_share: float, most: int) -> int:
    """The length of a draft that gives most tokens per second; 0 if none gives more than single tokens, by enough.

    The gain of a draft of k tokens, of which each is right with probability p if those before it are, is
    (1 + p + p² + ... + p^k) / (1 + k · row_share): tokens over costs, the utility of Saxena et al., "Utility-Driven
    Speculative Decoding for Mixture-of-Experts" (2025).
    """
    best, length = _LEAST_GAIN, 0
    tokens, cost, right = 1.0, 1.0, 1.0
    for count in range(1, most + 1):
        right *= acceptance
        if right <= row_share:  # none from here on brings what it costs
            break
        tokens, cost = tokens + right, cost + row_share
        if tokens / cost > best:
            best, length = tokens / cost, count
    return length
