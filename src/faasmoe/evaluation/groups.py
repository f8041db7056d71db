"""Groups of runs that differ in nothing but the trial, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from faasmoe.evaluation.results import FIGURES, Results, Run
from faasmoe.evaluation.statistics import Estimate, mean

Value = str | int | float | None


class Kind(NamedTuple):
    """The settings that all runs of a group share."""

    experiment: str
    workload: str
    strategy: str
    tenants: int
    settings: tuple[tuple[str, Value], ...]  # by name

    def __str__(self) -> str:
        return ", ".join([self.experiment, self.workload, self.strategy, f"{self.tenants} tenants"])

    def setting(self, name: str) -> Value:
        """None if its runs do not have it."""
        return dict(self.settings).get(name)

    @property
    def place(self) -> tuple[str, str]:
        """Experiment and workload. Groups of one place are shown together."""
        return self.experiment, self.workload


@dataclass(frozen=True, slots=True)
class RunGroup:
    """All runs of a kind, one for each trial."""

    kind: Kind
    runs: tuple[Run, ...]

    @property
    def extrapolated(self) -> bool:
        """True if figures are extrapolated from fewer tenants."""
        return any(run.extrapolated for run in self.runs)

    def samples(self, figure: str) -> list[float] | None:
        """One value for each trial; None for a trial in which no request was answered."""
        try:
            return [FIGURES[figure](run) for run in self.runs]
        except (ValueError, ZeroDivisionError):
            return None

    def figure(self, name: str) -> Estimate | None:
        """The mean over trials; None where there is none."""
        samples = self.samples(name)
        return mean(samples) if samples else None


def groups_of(results: Results) -> list[RunGroup]:
    """In the order in which they were first run."""
    kinds: dict[Kind, list[Run]] = {}
    for run in results.runs:
        kind = Kind(run.experiment, run.workload, run.strategy, run.tenants, tuple(sorted(run.settings.items())))
        kinds.setdefault(kind, []).append(run)
    return [RunGroup(kind, tuple(runs)) for kind, runs in kinds.items()]


def names(kinds: Sequence[Kind]) -> list[str]:
    """Names of groups: the strategy, and the settings that tell it from similar groups."""
    return [", ".join([str(kind), *_differing(kind, kinds)]) for kind in kinds]


def _differing(kind: Kind, kinds: Sequence[Kind]) -> list[str]:
    alike = [other for other in kinds if other[:3] == kind[:3]]
    return [
        f"{name} {value}" for name, value in kind.settings if any(other.setting(name) != value for other in alike)
    ]
