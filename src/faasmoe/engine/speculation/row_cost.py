"""The cost of a further row in a step: measured, since it depends on the model, the machine and the batch."""

from __future__ import annotations

_MEMORY = 0.98  # that a step keeps of its weight with the next one: about fifty steps count
_FIRST_SHARE = 0.3  # of an average step that a row is taken to cost until the steps tell
_CONFIDENCE = 1.0  # in that, as the sum of squared deviations of rows that outweighs it
_MOST_SLOWER = 2.0  # than expected: what takes longer was interrupted, which says nothing about rows


class RowCost:
    """A line through the rows and seconds of steps without prompts: least squares in which older steps count less.

    In a Mixture-of-Experts model rows cost more than elsewhere, since each reads experts of its own. If all recent
    steps had the same number of rows, there is no line, and the slope is the one that was assumed at first. So a draft
    that was too expensive is tried again some two hundred steps later.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0  # of all steps, and their weighted means
        self._squares = self._products = 0.0  # weighted sums of deviations: of rows squared, of rows by seconds

    def note(self, rows: int, seconds: float) -> None:
        """A step of `rows` rows took `seconds`, which are above 0."""
        if self._weight:
            seconds = min(seconds, _MOST_SLOWER * self._expected(rows))
        self._weight = _MEMORY * self._weight + 1
        deviation = rows - self._rows
        self._rows += deviation / self._weight
        self._seconds += (seconds - self._seconds) / self._weight
        self._squares = _MEMORY * self._squares + deviation * (rows - self._rows)
        self._products = _MEMORY * self._products + deviation * (seconds - self._seconds)

    def share(self, rows: int) -> float:
        """The cost of a further row over the mean cost of a row in a step of `rows` rows: 0 to 1.

        A row that brings fewer tokens than this share makes the tokens of all together take longer.
        """
        if not self._weight:
            return _FIRST_SHARE
        return rows * self._slope / self._expected(rows)

    @property
    def _slope(self) -> float:
        """Seconds a row."""
        even = self._seconds / self._rows  # if there were no other costs, more than which it cannot be
        guess = _FIRST_SHARE * even
        slope = (self._products + _CONFIDENCE * guess) / (self._squares + _CONFIDENCE)
        return min(max(slope, 0.0), even)

    def _expected(self, rows: int) -> float:
        """Seconds of a step of `rows` rows."""
        return self._seconds + self._slope * (rows - self._rows)
