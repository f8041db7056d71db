"""Ends a model's reasoning when it has come to as many tokens as the request gives it."""

from __future__ import annotations

from collections import deque

from faasmoe.protocol.request import ThinkingBudget


class ThinkingLimit:
    """Follows the tokens of one sequence, and says which one must come next, if one must."""

    def __init__(self, budget: ThinkingBudget) -> None:
        self._budget = budget
        self._first: list[int] = []  # tokens before the reasoning, but for whitespace
        self._last: deque[int] = deque(maxlen=len(budget.end))  # of the reasoning
        self._thinking = not budget.begin
        self._ended = False
        self._spent = 0  # tokens of reasoning
        self._forced = 0  # tokens of the end that have been forced

    def forced(self) -> int | None:
        """The token that has to come next."""
        if self._ended or not self._thinking or self._spent < self._budget.tokens:
            return None
        return self._budget.end[self._forced]

    def note(self, token: int) -> None:
        """The sequence goes on with `token`."""
        if self._ended:
            return
        if not self._thinking:
            self._note_first(token)
            return
        if self.forced() == token:
            self._forced += 1
        self._spent += 1
        self._last.append(token)
        self._ended = tuple(self._last) == self._budget.end or self._forced == len(self._budget.end)

    def _note_first(self, token: int) -> None:
        begin = self._budget.begin
        if not self._first and token in self._budget.blank and token != begin[0]:
            return
        self._first.append(token)
        self._thinking = tuple(self._first) == begin
        self._ended = tuple(self._first) != begin[: len(self._first)]  # it does not think
