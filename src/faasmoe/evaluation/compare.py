"""Two results held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from faasmoe.evaluation.groups import Kind, RunGroup, groups_of
from faasmoe.evaluation.results import FIGURES, Results
from faasmoe.evaluation.statistics import Estimate, mean, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One figure of one kind of run in two files of results."""

    kind: Kind
    figure: str
    before: Estimate
    after: Estimate
    ratio: Estimate | None  # after over before; None where before is 0
    extrapolated: bool  # in one of them, from fewer tenants

    @property
    def distinct(self) -> bool:
        """True if the ratio's interval excludes 1."""
        return self.ratio is not None and (self.ratio.low > 1 or self.ratio.high < 1)


def compare(before: Results, after: Results) -> list[Difference]:
    """The differences of all figures, for the kinds of runs that both results have."""
    new = {group.kind: group for group in groups_of(after)}
    return [
        difference
        for group in groups_of(before)
        if group.kind in new
        for difference in _differences(group, new[group.kind])
    ]


def _differences(old: RunGroup, new: RunGroup) -> Iterator[Difference]:
    extrapolated = old.extrapolated or new.extrapolated
    for figure in FIGURES:
        before, after = old.samples(figure), new.samples(figure)
        if before is None or after is None:
            continue
        known = ratio(after, before) if min(before) > 0 else None
        yield Difference(
            kind=old.kind,
            figure=figure,
            before=mean(before),
            after=mean(after),
            ratio=known,
            extrapolated=extrapolated,
        )
