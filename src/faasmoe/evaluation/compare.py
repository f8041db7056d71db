"""Two results held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from faasmoe.evaluation.results import FIGURES, Results, Run
from faasmoe.evaluation.statistics import Estimate, mean, ratio

Kind = tuple[str, str, str, int, str]  # experiment, workload, strategy, tenants, settings


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one kind of run, in both."""

    kind: Kind
    figure: str
    before: Estimate
    after: Estimate
    ratio: Estimate | None  # after over before; None where before is 0

    @property
    def distinct(self) -> bool:
        """Whether the interval of the ratio leaves out 1."""
        return self.ratio is not None and (self.ratio.low > 1 or self.ratio.high < 1)


def compare(before: Results, after: Results) -> list[Difference]:
    """All figures of the kinds of runs that both have."""
    old, new = _by_kind(before), _by_kind(after)
    return [difference for kind in old if kind in new for difference in _differences(kind, old[kind], new[kind])]


def figures_of(results: Results) -> list[tuple[Kind, dict[str, Estimate]]]:
    """Means over trials, for each kind of run."""
    return [(kind, _figures(runs)) for kind, runs in _by_kind(results).items()]


def _figures(runs: list[Run]) -> dict[str, Estimate]:
    found = {}
    for name, figure in FIGURES.items():
        with suppress(ValueError, ZeroDivisionError):  # nothing was answered
            found[name] = mean([figure(run) for run in runs])
    return found


def _differences(kind: Kind, old: list[Run], new: list[Run]) -> Iterator[Difference]:
    for name, figure in FIGURES.items():
        try:
            before, after = [figure(run) for run in old], [figure(run) for run in new]
        except (ValueError, ZeroDivisionError):  # nothing was answered
            continue
        known = min(before) > 0
        yield Difference(kind, name, mean(before), mean(after), ratio(after, before) if known else None)


def _by_kind(results: Results) -> dict[Kind, list[Run]]:
    kinds: dict[Kind, list[Run]] = {}
    for run in results.runs:
        settings = ", ".join(f"{name} {value}" for name, value in sorted(run.settings.items()))
        kinds.setdefault((run.experiment, run.workload, run.strategy, run.tenants, settings), []).append(run)
    return kinds
