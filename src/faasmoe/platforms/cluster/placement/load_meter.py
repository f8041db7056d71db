"""The load meter: from recorded calls to the load of each function."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import exp, log

HALF_LIFE = 120.0  # seconds after which a call counts half: long beside a prompt, short beside a change of tenants


class LoadMeter:
    """Activated bytes a second of each function, as a moving average in which old calls count less and less.

    EPLB leaves the estimate to its user and names a moving average as the usual one. This one decays with time, not
    with steps, so that functions of different orchestrators can be added. `clock` gives seconds. One thread uses it.
    """

    def __init__(self, clock: Callable[[], float], half_life: float = HALF_LIFE) -> None:
        self._clock = clock
        self._rate = log(2) / half_life
        self._began = clock()
        self._work: dict[
            str, tuple[float, float]
        ] = {}  # decayed bytes, and the instant to which they have decayed

    def note(self, calls: Iterable[tuple[str, float]]) -> None:
        """Count calls, each a function's name and its activated bytes, as `RoutingTable.assign` gets them."""
        now = self._clock()
        for function, work in calls:
            before, at = self._work.get(function, (0.0, now))
            decayed = before if at == now else before * self._decay(now - at)
            self._work[function] = (decayed + work, now)

    def loads(self) -> dict[str, float]:
        """The load of each function that was called, in bytes a second.

        While the meter is young this is the mean since its beginning, not an average with a past in which nothing was
        called.
        """
        now = self._clock()
        age = max(now - self._began, 1e-3)
        weight = self._rate / (1 - self._decay(age))  # over seconds: the integral of the decay is 1
        return {function: work * self._decay(now - at) * weight for function, (work, at) in self._work.items()}

    def _decay(self, seconds: float) -> float:
        return exp(-self._rate * seconds)
