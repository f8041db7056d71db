"""Names and units of figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from faasmoe.evaluation.statistics import Estimate

EXTRAPOLATED = "†"
NOTE = f"{EXTRAPOLATED} extrapolated: fewer tenants were run"


@dataclass(frozen=True, slots=True)
class Shown:
    """A figure of `results.FIGURES` for people: its title, and the unit that is `factor` of the stored one."""

    title: str
    unit: str = ""
    factor: float = 1.0

    @property
    def heading(self) -> str:
        """The title with its unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


SHOWN = {
    "memory_mean_bytes": Shown("memory", "GB", 1e9),
    "memory_peak_bytes": Shown("peak memory", "GB", 1e9),
    "page_cache_bytes": Shown("weights in page cache", "GB", 1e9),
    "gb_seconds": Shown("memory over time", "GB s"),
    "cpu_percent": Shown("CPU", "% of a core"),
    "cpu_seconds_per_token": Shown("CPU a token", "ms", 1e-3),
    "tokens_per_second": Shown("tokens/s"),
    "invocations_per_token": Shown("invocations a token"),
    "cold_starts": Shown("cold starts"),
    **{
        f"{name}_{share}": Shown(f"{title} {share}", unit, factor)
        for name, title, unit, factor in (
            ("first_token", "first token", "s", 1.0),
            ("token", "further token", "ms", 1e-3),
            ("end_to_end", "response", "s", 1.0),
        )
        for share in ("p50", "p95", "p99")
    },
}


def written(estimate: Estimate | None, shown: Shown, extrapolated: bool = False) -> str:
    """The value with half of its interval, in the unit that `shown` has; empty if there is none."""
    if estimate is None:
        return ""
    text = with_spread(estimate.value / shown.factor, estimate.half_width / shown.factor)
    return f"{text} {EXTRAPOLATED}" if extrapolated else text


def with_spread(value: float, half: float) -> str:
    """Three digits that count, and the spread to as many places."""
    places = places_of(value)
    text = f"{value:,.{places}f}"
    return f"{text} ± {half:,.{places}f}" if math.isfinite(half) and (value or half) else text


def places_of(value: float) -> int:
    """After the point, for three digits that count."""
    rounded = abs(float(f"{value:.3g}"))
    return max(0, 2 - math.floor(math.log10(rounded))) if rounded else 0


def interval(estimate: Estimate | None, places: int = 3) -> str:
    """The bounds of the interval as text; empty if there are too few trials."""
    if estimate is None or not math.isfinite(estimate.high - estimate.low):
        return ""
    return f"{estimate.low:.{places}f} to {estimate.high:.{places}f}"
