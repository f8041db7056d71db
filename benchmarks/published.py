"""Fills tables of documents from the published results, docs/evaluation/*.json, and draws the charts that they show.

    python -m benchmarks.published

Between `<!-- claims: NAME... -->`, `<!-- bounds: all -->` or `<!-- figures: NAME SECTION -->` and `<!-- end -->` is
what the results of these names say; SECTION is one of the report's, such as strategies-paper.
`<!-- planned: NAME GEOMETRY LAYERS VOCABULARY -->` holds the planner against all trials of each strategy of ours: it is
told what was asked, and when. An image evaluation/NAME-SECTION-CHART.png is the report's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import fmean

from faasmoe.evaluation.claims import CLAIMS, judge
from faasmoe.evaluation.meters.meter import integral
from faasmoe.evaluation.report.page import Chapter, chapters_of, charts_of
from faasmoe.evaluation.report.tables import Table, bounds_table, claims_table
from faasmoe.evaluation.results import Results, Run
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.model.weights.blocks import DEFAULT_BLOCK_SIZE
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import Machine, ProcessFootprint
from faasmoe.planner.plan import requests_of
from faasmoe.planner.prediction import Prediction, predict
from faasmoe.planner.shape import ModelShape, shape_of

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "evaluation"
DOCUMENTS = (ROOT / "docs" / "evaluation.md", ROOT / "docs" / "planning.md", ROOT / "README.md")
_BLOCK = re.compile(r"(<!-- (claims|bounds|figures|planned): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_IMAGE = re.compile(r"\]\((?:docs/)?evaluation/([a-z0-9-]+)\.png\)")
_CLOSED = ("paper", "saturated")  # workloads in which a tenant asks when it has its answer
_WARM_UP = 1.0  # seconds before what counts
_AMPLE = 64 << 30  # bytes
# of processes when the results were measured: functions imported torch, and kernels came from numba
_FOOTPRINT_THEN = ProcessFootprint(orchestrator=332 << 20, platform=280 << 20, instance=46 * (1 << 20) // 10)
_NOT_YET = "Not measured yet."


def published(folder: Path = FOLDER) -> dict[str, Results]:
    """By the names of their files."""
    return {file.stem: Results.load(file) for file in sorted(folder.glob("*.json"))}


def filled(text: str, results: Mapping[str, Results]) -> str:
    """The text with all tables as `results` have them. Raises `KeyError` for a section that there is not."""
    chapters = {chapter.name: chapter for chapter in chapters_of(results)}

    def block(found: re.Match[str]) -> str:
        before, kind, words, after = found.groups()
        names = words.split()
        if kind == "claims":
            made = _claims(names, results)
        elif kind == "bounds":
            made = bounds_table(CLAIMS).markdown()
        elif kind == "figures":
            made = _figures(names[0], names[1], chapters)
        else:
            made = _planned(names[0], shape_of(names[1], layers=int(names[2]), vocab=int(names[3])), results)
        return f"{before}{made}\n{after}"

    return _BLOCK.sub(block, text)


def shown(text: str) -> list[str]:
    """Charts that the text shows."""
    return _IMAGE.findall(text)


def _claims(names: list[str], results: Mapping[str, Results]) -> str:
    there = {name: results[name] for name in names if name in results}
    return claims_table(judge(there), several=len(there) > 1).markdown() if there else _NOT_YET


def _figures(name: str, section: str, chapters: Mapping[str, Chapter]) -> str:
    sections = {one.name: one for one in chapters[name].sections} if name in chapters else {}
    if section not in sections:
        return _NOT_YET
    return "\n\n".join(table.markdown() for table in sections[section].tables)


@dataclass(frozen=True)
class Held:
    """What was measured, beside what the planner says."""

    memory: float  # bytes on average
    memory_predicted: float
    invocations: float  # a token
    invocations_predicted: float


def planned(results: Results, shape: ModelShape) -> dict[str, Held]:
    """Each strategy and workload that is ours: means of all trials."""
    trials: dict[str, list[Held]] = {}
    for run in results.runs:
        if run.experiment == "strategies" and run.strategy.startswith("faasmoe"):
            trials.setdefault(f"`{run.strategy}`, {run.workload}", []).append(_held(run, shape))
    return {
        what: Held(*(fmean(getattr(one, each.name) for one in every) for each in fields(Held)))
        for what, every in trials.items()
    }


def _held(run: Run, shape: ModelShape) -> Held:
    told = _predicted(run, shape)
    memory = told.memory_mean - (0 if "gateway" in run.usage.pss else told.memory["gateway"])
    calls = run.invocations / run.tokens
    return Held(_until_the_last_answer(run), memory, calls, told.invocations_per_token)


def _until_the_last_answer(run: Run) -> float:
    """Bytes on average so far: the planner does not look beyond, but `bursty` is measured to the end of its time."""
    last = max(one.end or 0.0 for one in run.requests)
    samples = 1 + next((n for n, time in enumerate(run.usage.times) if time >= last), len(run.usage.times))
    times = run.usage.times[:samples]
    return integral(times, run.usage.total[:samples]) / times[-1]


def _predicted(run: Run, shape: ModelShape) -> Prediction:
    """Of the same requests after a warm-up of a few tokens. In closed loop they follow each other, else have times."""
    tenants = sorted({one.tenant for one in run.requests})
    asks, begun = [Ask(0.0, tenant, 8, 4) for tenant in tenants], set()
    for one in sorted(run.requests, key=lambda one: one.asked):
        time = None if run.workload in _CLOSED and one.tenant in begun else _WARM_UP + one.asked
        begun.add(one.tenant)
        asks.append(Ask(time, one.tenant, one.prompt_tokens, one.tokens))
    requests = requests_of(asks)
    block_size, keep_alive = run.settings["block_size"] or DEFAULT_BLOCK_SIZE, run.settings["keep_alive"]
    assert keep_alive is not None
    setting = Setting(run.strategy.removeprefix("faasmoe-"), int(block_size), float(keep_alive))
    conditions = Conditions(
        shape, _AMPLE, machine=Machine(cores=2), footprint=_FOOTPRINT_THEN, count_from=_WARM_UP
    )
    return predict(requests, setting, conditions)


def _planned(name: str, shape: ModelShape, results: Mapping[str, Results]) -> str:
    rows = [
        (what, f"{one.memory / 1e9:.2f}", *_beside(one.memory, one.memory_predicted, 1e9),
         f"{one.invocations:.2f}", *_beside(one.invocations, one.invocations_predicted, 1.0))
        for what, one in (planned(results[name], shape).items() if name in results else ())
    ]  # fmt: skip
    heads = ("", "memory, GB", "predicted", "off", "invocations a token", "predicted", "off")
    return Table(heads, tuple(rows)).markdown() if rows else _NOT_YET


def _beside(measured: float, told: float, unit: float) -> tuple[str, str]:
    return f"{told / unit:.2f}", f"{100 * (told / measured - 1):+.1f} %"


def main() -> None:
    results = published()
    charts = charts_of(chapters_of(results))
    for document in DOCUMENTS:
        text = document.read_text()
        document.write_text(filled(text, results))
        for name in shown(text):
            (FOLDER / f"{name}.png").write_bytes(charts[name].draw().png)


if __name__ == "__main__":
    main()
