"""Where the time of a decoding step goes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.decode.models import make_tiny
from benchmarks.decode.serving import EIGHT, ONE, functions, ours
from benchmarks.figures import Figures
from benchmarks.peers import Task
from faasmoe.engine.stats import StepStats

# what a step's time is for, by the names that engine and dispatch have for their parts
PHASES = {"dense": "dense", "pack": "routing", "invoke": "invocation", "combine": "combine", "sample": "sampling",
          "schedule": "scheduling", "account": "accounting"}  # fmt: skip


def step_times(folder: Path, task: Task) -> Figures:
    """Median milliseconds of a decoding step by phase."""
    with ours(folder, functions) as mine:
        engine, counts = mine.serving.engine, mine.serving.dispatch.counts
        steps: list[dict[str, float]] = []
        before = dict(counts.seconds)

        def observe(report: StepStats) -> None:
            nonlocal before
            now = dict(counts.seconds)
            phases = dict(report.phases)
            routed = {phase: now[phase] - before[phase] for phase in now}
            phases["dense"] = phases.pop("forward") - sum(routed.values())
            if report.prompt_tokens == 0:
                steps.append({**phases, **routed})
            before = now

        engine._observer = observe
        mine.run(task)
    return {
        name: 1e3 * statistics.median(step[phase] for step in steps)
        for phase, name in PHASES.items()
        if phase in steps[0]
    }


def where_time_goes(folder: Path, rounds: int) -> Figures:
    del rounds  # each step is one
    one, eight = (step_times(folder, task) for task in (ONE, EIGHT))
    return {f"step_{phase}_ms": took for phase, took in one.items()} | {
        f"step8_{phase}_ms": took for phase, took in eight.items()
    }


def step_overhead(folder: Path, rounds: int) -> Figures:
    """Everything of a step but the model's own layers and the platform's work, with 24 tiny layers."""
    del folder, rounds
    with tempfile.TemporaryDirectory() as temporary:
        times = step_times(make_tiny(Path(temporary) / "tiny"), Task(16, 16, 100, 0))
    return {f"tiny_{phase}_ms": took for phase, took in times.items()} | {
        "step_overhead_ms": sum(times.values()) - times["dense"] - times["invocation"]
    }
