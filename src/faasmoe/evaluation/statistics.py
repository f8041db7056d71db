"""Statistics of trials: means and ratios with intervals, percentiles.

Intervals hold with 95 % confidence if trials are independent and roughly normal. A ratio of two strategies is taken
from trials in pairs (both ran on the same requests, one after the other) where there are pairs, and by Fieller's
theorem where not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_MANY = 200  # degrees of freedom, from which Student's distribution is nearly normal

Samples = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its confidence interval. `low` and `high` are NaN with too few trials."""

    value: float
    low: float
    high: float
    trials: int
    deviation: float = math.nan  # standard deviation between trials, with n - 1

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2


def mean(samples: Samples) -> Estimate:
    """The mean and its interval by Student's t distribution. Raises `ValueError` if there is no sample."""
    values = _finite(samples)
    centre = float(values.mean())
    if len(values) == 1:
        return Estimate(centre, math.nan, math.nan, 1)
    deviation = float(values.std(ddof=1))
    half = _t(len(values) - 1) * deviation / math.sqrt(len(values))
    return Estimate(centre, centre - half, centre + half, len(values), deviation)


def paired_ratio(numerator: Samples, denominator: Samples) -> Estimate:
    """The ratio of paired trials: the geometric mean of the pairs' ratios.

    The interval is Student's for the mean of the logarithms. Raises `ValueError` if there are not as many of both, or
    one is not above 0.
    """
    above, below = _finite(numerator), _finite(denominator)
    if len(above) != len(below):
        raise ValueError(f"{len(above)} and {len(below)} samples make no pairs")
    if min(above.min(), below.min()) <= 0:
        raise ValueError("ratios are taken of values above 0")
    logs = mean(np.log(above / below))
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.trials, logs.deviation)


def ratio(numerator: Samples, denominator: Samples) -> Estimate:
    """The ratio of two means of independent trials. Raises `ValueError` as `paired_ratio` does.

    The interval is Fieller's (Fieller 1954), with Welch's degrees of freedom. Its bounds are infinite where the
    denominator is not distinct from 0.
    """
    above, below = _finite(numerator), _finite(denominator)
    if below.mean() <= 0:
        raise ValueError("ratios are taken over values above 0")
    value = float(above.mean() / below.mean())
    if min(len(above), len(below)) == 1:
        return Estimate(value, math.nan, math.nan, 1)
    var_above, var_below = float(above.var(ddof=1) / len(above)), float(below.var(ddof=1) / len(below))
    t = _t(_welch(var_above, len(above), var_below * value**2, len(below)))
    return Estimate(value, *_fieller(float(above.mean()), float(below.mean()), var_above, var_below, t),
                    trials=min(len(above), len(below)))  # fmt: skip


def percentiles(samples: Samples, shares: Sequence[float] = (0.5, 0.95, 0.99)) -> dict[str, float]:
    """`p50` and so on, interpolated between neighbours. Raises `ValueError` if there is no sample."""
    values = _finite(samples)
    return {f"p{share * 100:g}": float(np.quantile(values, share)) for share in shares}


def _fieller(above: float, below: float, var_above: float, var_below: float, t: float) -> tuple[float, float]:
    """The roots of (above - r below)² = t² (var_above + r² var_below)."""
    a = below**2 - t**2 * var_below
    if a <= 0:
        return -math.inf, math.inf
    b = -2 * above * below
    root = math.sqrt(max(0.0, b**2 - 4 * a * (above**2 - t**2 * var_above)))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def _welch(one: float, its: int, other: float, others: int) -> float:
    """Degrees of freedom for a difference, from the variances of both means and how many samples they have."""
    if one + other == 0:
        return its + others - 2
    return (one + other) ** 2 / (one**2 / (its - 1) + other**2 / (others - 1))


@lru_cache(maxsize=256)
def _t(freedom: float) -> float:
    """The bound that Student's distribution keeps to with `CONFIDENCE`, for at least one degree of freedom.

    With t = sqrt(freedom) tan(u) its density is cos(u) to the power of freedom - 1, but for a factor. Written out here
    because transformers imports scipy wherever it is installed: a second and 23 MB of every orchestrator.
    """
    if freedom > _MANY:
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # Cornish and Fisher's expansion around it
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    nodes, weights = _legendre()

    def mass(angle: float) -> float:
        return angle * float(weights @ np.cos(angle * (nodes + 1) / 2) ** (freedom - 1))

    low, high = 0.0, math.pi / 2
    wanted = CONFIDENCE * mass(high)
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if mass(middle) < wanted else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights to integrate from -1 to 1; made in milliseconds."""
    return np.polynomial.legendre.leggauss(64)


def _finite(samples: Samples) -> np.ndarray:
    values = np.asarray(samples, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{values.size} samples, of which {int(np.isfinite(values).sum())} are finite numbers")
    return values
