"""Ends a model's reasoning when it has come to as many tokens as the request gives it."""

from __future__ import annotations

from faasmoe.protocol.request import ThinkingBudget


class ThinkingLimit:
    """Follows the tokens of one sequence, and says which one must come next, if one must."""

    def __init__(self, budget: ThinkingBudget) -> None:
        self._budget = budget
        self._tokens: list[int] = []
        self._ended = False
        self._forced = 0  # tokens of the end that have been forced

    def forced(self) -> int | None:
        """The token that has to come next."""
        begin, end = self._budget.begin, self._budget.end
        spent = len(self._tokens) - len(begin)
        if self._ended or spent < self._budget.tokens or tuple(self._tokens[: len(begin)]) != begin:
            return None
        return end[self._forced]

    def note(self, token: int) -> None:
        """The sequence goes on with `token`."""
        if self._ended:
            return
        begin, end = self._budget.begin, self._budget.end
        if self.forced() == token:
            self._forced += 1
        self._tokens.append(token)
        its = tuple(self._tokens)
        self._ended = (
            its[-len(end) :] == end
            or self._forced == len(end)
            or (
                its[: len(begin)] != begin[: len(its)]  # it does not think
            )
        )
