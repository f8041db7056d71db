"""The project's claims, the sources of their bounds, and the check against results.

The paper's own figures are of FaaSMoE, arXiv 2604.26881: CPU of 1126.8 % for the baseline, 428.7 for local
distribution, 326.4 for FaaSMoE shared and 408.5 for private; memory of 217.5, 50.4, 72.25 and 91.0 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from faasmoe.evaluation.results import FIGURES, Results, Run
from faasmoe.evaluation.statistics import Estimate, paired_ratio, ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim that the ratio of `figure` between two strategies is at most (or at least) `bound`."""

    key: str
    says: str
    figure: str  # one of `FIGURES`
    strategy: str
    over: str
    bound: float
    at_least: bool = False
    whole_interval: bool = False  # the far end of the 95 % interval must meet the bound as well
    experiment: str = "strategies"
    workload: str = "paper"
    tenants: int | None = 6  # None: any number
    source: str = ""  # of the bound
    paper: float | None = None  # the same ratio in the paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A claim, the figure that was measured, the model, and the file of results.

    `estimate` is None if the claim was not measured; `why` says what is missing then.
    """

    claim: Claim
    estimate: Estimate | None
    extrapolated: bool = False
    model: str | None = None
    file: str | None = None
    why: str = ""
    meter_share: float | None = None  # of one core, what measuring took on average

    @property
    def reached(self) -> bool | None:
        """True if the figure meets the bound; None without a figure. An interval of too few trials meets none."""
        if self.estimate is None:
            return None
        estimate, claim = self.estimate, self.claim
        if claim.at_least:
            return (estimate.low if claim.whole_interval else estimate.value) >= claim.bound
        return (estimate.high if claim.whole_interval else estimate.value) <= claim.bound

    @property
    def word(self) -> str:
        """`reached` as a word."""
        return {True: "reached", False: "missed", None: "not measured"}[self.reached]


OURS, FULL = "faasmoe-shared", "shared-full"
_BAR = "against what users would run instead, which the paper has not measured"
CLAIMS = (
    Claim(
        key="memory_vs_baseline",
        says="memory over one full model for each tenant",
        figure="memory_mean_bytes",
        strategy=OURS,
        over="baseline",
        bound=1 / 5,
        source="a fifth, where the paper has a third",
        paper=72.25 / 217.5,
    ),
    Claim(
        key="cpu_vs_baseline",
        says="CPU time a token over one full model for each tenant",
        figure="cpu_seconds_per_token",
        strategy=OURS,
        over="baseline",
        bound=1 / 3.5,
        source="the paper's ratio",
        paper=326.4 / 1126.8,
    ),
    Claim(
        key="memory_vs_local_distribution",
        says="memory over a dense part for each tenant beside one server that always holds all experts",
        figure="memory_mean_bytes",
        strategy=OURS,
        over="local-distribution",
        bound=1.0,
        source="no more than what keeps all experts, where the paper takes more",
        paper=72.25 / 50.4,
    ),
    Claim(
        key="private_vs_shared_memory",
        says="memory of an orchestrator for each tenant over one orchestrator for all",
        figure="memory_mean_bytes",
        strategy="faasmoe-private",
        over=OURS,
        bound=1.25,
        source="the paper's ratio",
        paper=91.0 / 72.25,
    ),
    Claim(
        key="peak_memory_vs_shared_full",
        says="peak memory over one full model for all tenants",
        figure="memory_peak_bytes",
        strategy=OURS,
        over=FULL,
        bound=1.10,
        source=f"{_BAR}: a tenth more when all experts are in use",
    ),
    Claim(
        key="bursty_memory_vs_shared_full",
        says="memory over one full model for all tenants, with bursts; the upper end counts",
        figure="memory_mean_bytes",
        strategy=OURS,
        over=FULL,
        bound=0.45,
        whole_interval=True,
        workload="bursty",
        tenants=None,
        source=f"{_BAR}: less than half of its memory where load comes in bursts, whatever their lengths",
    ),
    Claim(
        key="bursty_p95_vs_shared_full",
        says="95th percentile of latency over one full model for all tenants, with bursts",
        figure="end_to_end_p95",
        strategy=OURS,
        over=FULL,
        bound=1.3,
        workload="bursty",
        tenants=None,
        source=f"{_BAR}: cold starts may cost three tenths of latency",
    ),
    Claim(
        key="pressure_vs_llamacpp",
        says="tokens a second over llama.cpp, with half of the model's memory",
        figure="tokens_per_second",
        strategy=OURS,
        over="llama.cpp",
        bound=1.0,
        at_least=True,
        experiment="pressure",
        workload="50 %",
        tenants=None,
        source="llama.cpp is what users would run where memory is short",
    ),
    Claim(
        key="throughput_vs_shared_full",
        says="tokens a second over one full model for all tenants, saturated",
        figure="tokens_per_second",
        strategy=OURS,
        over=FULL,
        bound=0.9,
        at_least=True,
        workload="saturated",
        tenants=None,
        source=f"{_BAR}: a tenth less may be lost",
    ),
)


def judge(several: Mapping[str, Results]) -> list[Verdict]:
    """All claims, in order. The first of the results that have what a claim speaks of answers for it.

    `several` is by the names of their files.
    """
    return [_judge(claim, several) for claim in CLAIMS]


def _judge(claim: Claim, several: Mapping[str, Results]) -> Verdict:
    for name, results in several.items():
        above, below = (_runs(claim, strategy, results) for strategy in (claim.strategy, claim.over))
        estimate = _ratio(FIGURES[claim.figure], above, below)
        if estimate:
            runs = [*above.values(), *below.values()]
            extrapolated = any(run.extrapolated for run in runs)
            share = fmean(run.usage.meter_share for run in runs)
            return Verdict(
                claim=claim,
                estimate=estimate,
                extrapolated=extrapolated,
                model=results.model,
                file=name,
                meter_share=share,
            )
    return Verdict(
        claim=claim,
        estimate=None,
        why=_missing(claim, [run for results in several.values() for run in results.runs]),
    )


def _missing(claim: Claim, runs: Sequence[Run]) -> str:
    """The reason why a claim is not measured, as text."""
    its = [run for run in runs if (run.experiment, run.workload) == (claim.experiment, claim.workload)]
    if not its:
        workload = (
            f" under {claim.workload}" if claim.experiment == "pressure" else f" --workload {claim.workload}"
        )
        return f"there is no run of: faasmoe evaluate {claim.experiment}{workload}"
    return ", and ".join(_lacking(claim, its)) or "a run has no responses to compare"


def _lacking(claim: Claim, runs: Sequence[Run]) -> Iterator[str]:
    for strategy in (claim.strategy, claim.over):
        tenants = {run.tenants for run in runs if run.strategy == strategy}
        if not tenants:
            yield f"there is no run of {strategy}"
        elif claim.tenants not in (None, *tenants):
            found = ", ".join(map(str, sorted(tenants)))
            yield f"{claim.tenants} tenants are wanted, and runs of {strategy} have {found}"


def _ratio(figure: Callable[[Run], float], above: dict[int, Run], below: dict[int, Run]) -> Estimate | None:
    """None if there is nothing to compare: one of them was not run, or has not answered."""
    try:
        over = {trial: figure(run) for trial, run in above.items()}
        under = {trial: figure(run) for trial, run in below.items()}
        if over.keys() == under.keys():  # the same requests, one after the other
            return paired_ratio(list(over.values()), [under[trial] for trial in over])
        return ratio(list(over.values()), list(under.values()))
    except (ValueError, ZeroDivisionError):
        return None


def _runs(claim: Claim, strategy: str, results: Results) -> dict[int, Run]:
    """The runs of a claim by trial."""
    return {
        run.trial: run
        for run in results.runs
        if (run.experiment, run.workload, run.strategy) == (claim.experiment, claim.workload, strategy)
        and claim.tenants in (None, run.tenants)
    }
