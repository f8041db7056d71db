"""Describes the cost of measuring beside its limit."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from faasmoe.evaluation.meters.budget import LIMIT
from faasmoe.evaluation.results import Run


def cost_of_measuring(runs: Sequence[Run]) -> str:
    """A sentence without its full stop."""
    shares = [run.usage.meter_share for run in runs if run.usage.seconds > 0]
    if not shares:
        return "nothing was measured"
    mean, most = fmean(shares), max(shares)
    limit = f"{'within' if most <= LIMIT else 'beyond'} the limit of {LIMIT:.1%}"
    missed, samples = (sum(getattr(run.usage.meter, name) for run in runs) for name in ("missed", "samples"))
    return (
        f"the meter took {mean:.1%} of a core on average and {most:.1%} at most, {limit}, "
        f"and left out {missed:,} of {samples + missed:,} samples"
    ).replace("%", " %")
