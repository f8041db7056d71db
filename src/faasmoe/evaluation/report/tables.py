"""Results as tables with notes, for a terminal, a page, or Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from faasmoe.evaluation.claims import Claim, Verdict
from faasmoe.evaluation.groups import RunGroup
from faasmoe.evaluation.meters.budget import LIMIT
from faasmoe.evaluation.report.units import EXTRAPOLATED, NOTE, SHOWN, interval, written
from faasmoe.evaluation.results import Run

USUAL = (
    "memory_mean_bytes", "memory_peak_bytes", "page_cache_bytes", "cpu_seconds_per_token", "tokens_per_second",
    "first_token_p50", "end_to_end_p50", "end_to_end_p95", "invocations_per_token", "cold_starts",
)  # fmt: skip
FEW = ("memory_mean_bytes", "cpu_seconds_per_token", "tokens_per_second", "end_to_end_p50", "end_to_end_p95")


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are written. The first `labels` columns say what a row is; `notes` stand below."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table as GitHub's Markdown."""
        marks = ["---"] * self.labels + ["--:"] * (len(self.columns) - self.labels)
        lines = [" | ".join(row) for row in (self.columns, marks, *self.rows)]
        table = "\n".join(f"| {line} |" for line in lines)
        return "\n\n".join([table, *self.notes])


def figures_table(
    labels: Mapping[str, Sequence[str]], groups: Sequence[RunGroup], figures: Iterable[str] = USUAL
) -> Table:
    """A row for each group, called by what `labels` has for it, with those of the figures that any of them has."""
    columns = {name: [group.figure(name) for group in groups] for name in figures}
    columns = {name: cells for name, cells in columns.items() if any(cell and cell.value for cell in cells)}
    marks = [group.extrapolated for group in groups]
    text = [
        [written(cell, SHOWN[name], mark) for cell, mark in zip(cells, marks, strict=True)]
        for name, cells in columns.items()
    ]
    trials = [len(group.runs) for group in groups]
    if len(set(trials)) > 1:
        labels = {**labels, "trials": [str(count) for count in trials]}
    rows = tuple(zip(*labels.values(), *text, strict=True))
    counts = sorted({run.measured_tenants for group in groups for run in group.runs if run.measured_tenants})
    notes = [f"{EXTRAPOLATED} extrapolated from {' or '.join(map(str, counts))} tenants"] if any(marks) else []
    least, most = min(trials, default=0), max(trials, default=0)
    count = f"{least}" if least == most else f"{least} to {most}"
    notes.append(f"Means of {count} trials, ± half of the 95 % interval." if most > 1 else "One trial.")
    return Table((*labels, *(SHOWN[name].heading for name in columns)), rows, len(labels), tuple(notes))


def claims_table(verdicts: Sequence[Verdict], several: bool = False) -> Table:
    """Claims beside results; with `several` files of results, also the file."""
    rows = tuple(
        (f"`{one.claim.key}`", one.claim.says, *claim_cells(one), one.word, *([one.file or ""] if several else []))
        for one in verdicts
    )
    notes = [NOTE] if any(one.extrapolated for one in verdicts) else []
    notes += [f"`{one.claim.key}` is not measured: {one.why}." for one in verdicts if one.reached is None]
    columns = ("key", "claim", *CLAIM_COLUMNS, *(["results"] if several else []))
    return Table(columns, rows, 2, tuple(notes))


CLAIM_COLUMNS = ("figure", "95 % interval", "trials", "must be", "the paper", "")


def claim_cells(verdict: Verdict) -> tuple[str, str, str, str, str]:
    """Figure, interval, trials (of the strategy with fewer), bound, and the paper's own figure."""
    found, claim = verdict.estimate, verdict.claim
    bound = f"{'≥' if claim.at_least else '≤'} {claim.bound:.3g}"
    paper = "" if claim.paper is None else f"{claim.paper:.3f}"
    if found is None:
        return "", "", "", bound, paper
    mark = f" {EXTRAPOLATED}" if verdict.extrapolated else ""
    return f"{found.value:.3f}{mark}", interval(found, 3), str(found.trials), bound, paper


def bounds_table(claims: Sequence[Claim]) -> Table:
    """The sources of the claims' bounds."""
    rows = tuple((f"`{claim.key}`", f"{claim.bound:.3g}", claim.source) for claim in claims)
    return Table(("key", "bound", "why"), rows, 3)


def cost_of_measuring(runs: Sequence[Run]) -> str:
    """The cost of measuring beside its limit, as a note: a sentence without its full stop."""
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
