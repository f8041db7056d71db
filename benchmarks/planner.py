"""Holds what `faasmoe plan` predicts against what real processes take: the demo model, three block sizes.

    python -m benchmarks.planner [--json FILE]

Routing is recorded on half of the prompts of the `paper` workload, and predicted for the other half. How long a layer
takes is taken from the first setting; everything else is predicted from there.
"""

# ruff: noqa: E402 - this process is an orchestrator too, and imports what one does
from __future__ import annotations

from faasmoe.model.adapter.light_import import import_transformers

import_transformers()

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Figures, report
from faasmoe.evaluation.drive import Outcome, drive
from faasmoe.evaluation.meters.meter import MeasuredUsage, Meter
from faasmoe.evaluation.statistics import percentiles
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.evaluation.workloads.paper import paper, task_sets
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.planner.activations import RecordedActivations
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import ProcessFootprint
from faasmoe.planner.plan import requests_of
from faasmoe.planner.prediction import Prediction, predict
from faasmoe.planner.shape import shape_of
from faasmoe.planner.simulation import SimulatedRequests
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions

ALONE = (Setting("shared", 10, 60.0), Setting("shared", 60, 60.0), Setting("shared", 20, 2.0))
ANSWER, PAUSE = 24, 6.0
LIMITS = {"memory_error_percent": 15.0, "invocations_error_percent": 5.0}


def alone(prompts: list[str], count: int) -> list[Ask]:
    """Requests with pauses, so that instances end in between if keep-alive is short."""
    return [Ask(PAUSE * (n + 1), "one", prompts[n % len(prompts)], ANSWER) for n in range(count)]


def together(rounds: int) -> list[Ask]:
    """Six tenants, each asking as soon as it has its answer."""
    return list(paper(rounds, max_tokens=ANSWER, seed=1))


@dataclass(frozen=True)
class Measured:
    """What real processes took."""

    usage: MeasuredUsage
    calls: float  # for each token of an answer
    outcomes: list[Outcome]

    def requests(self, closed: bool = False) -> SimulatedRequests:
        """What was asked, when, after one that does not count. Of a closed loop nobody knows the times before."""
        asks = [Ask(0.0, "first", 10, ANSWER)]
        for one in sorted(self.outcomes, key=lambda one: one.asked):
            follows = closed and any(ask.tenant == one.tenant for ask in asks)
            time = None if follows else PAUSE + (0.0 if closed else one.asked)
            asks.append(Ask(time, one.tenant, one.prompt_tokens, one.tokens))
        return requests_of(asks)


def recorded(prompts: list[str]) -> RecordedActivations:
    """By a process of its own, whose memory is not to be counted."""
    with tempfile.TemporaryDirectory() as folder:
        text, out = Path(folder, "prompts"), Path(folder, "activations")
        text.write_text("\n\n".join(prompts))
        command = [sys.executable, "-m", "faasmoe.cli.main", "models", "record", "--text", str(text)]
        subprocess.run([*command, "--out", str(out), "--answer-tokens", str(ANSWER)], check=True)
        return RecordedActivations.load(out)


def measure(setting: Setting, asks: list[Ask]) -> Measured:
    plan = make_plan(resolve(None), setting.block_size)
    options = EngineOptions(speculation="off")  # which predictions know nothing of
    with Runtime(plan, lambda: start("local", PRELOAD, keep_alive=setting.keep_alive), 2048, options) as serving:
        drive([Ask(None, "first", 10, ANSWER)], serving)  # a process's first step takes seconds
        before = serving.dispatch.counts.invocations
        with Meter("orchestrator") as meter:
            outcomes = drive(asks, serving)
        calls = (serving.dispatch.counts.invocations - before) / sum(outcome.tokens for outcome in outcomes)
    return Measured(meter.usage, calls, outcomes)


def seconds_a_token(outcome: Outcome) -> float:
    """For each token after the first."""
    return (outcome.end - outcome.first) / (outcome.tokens - 1)


def calibrated(given: Conditions, setting: Setting, measured: Measured) -> Conditions:
    """With the seconds of a layer with which the prediction of the time per token is right."""
    told = predict(measured.requests(), setting, given).time_per_output_token["p50"]
    took = percentiles([seconds_a_token(outcome) for outcome in measured.outcomes])["p50"]
    layer = given.machine.layer + (took - told) / len(given.shape.layers)
    return replace(given, machine=replace(given.machine, layer=max(0.0, layer)))


def figures(name: str, told: Prediction, measured: Measured) -> Iterator[tuple[str, float]]:
    usage, calls = measured.usage, measured.calls
    memory = sum(usage.mean.values())
    expected = told.memory_mean - told.memory["gateway"]  # none runs here
    yield f"{name}_memory_mib", memory / 2**20
    yield f"{name}_memory_predicted_mib", expected / 2**20
    yield f"{name}_memory_error_percent", 100 * abs(expected / memory - 1)
    yield f"{name}_invocations_per_token", calls
    yield f"{name}_invocations_predicted", told.invocations_per_token
    yield f"{name}_invocations_error_percent", 100 * abs(told.invocations_per_token / calls - 1)
    latency = percentiles([outcome.end_to_end for outcome in measured.outcomes])
    for share in ("p50", "p95"):
        yield f"{name}_{share}_s", latency[share]
        yield f"{name}_{share}_predicted_s", told.end_to_end[share]
    for role, mean in usage.mean.items():
        yield f"{name}_{role}_mib", mean / 2**20
    yield f"{name}_instances_predicted_mib", told.memory["instances"] / 2**20
    yield f"{name}_meter_cpu_percent", 100 * usage.meter.cpu_seconds / usage.seconds
    yield f"{name}_samples_a_second", usage.meter.samples / usage.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6, help="of each setting, one after the other")
    parser.add_argument("--rounds", type=int, default=1, help="of 30 requests, six at a time")
    parser.add_argument("--json", help="file for the figures")
    arguments = parser.parse_args()
    prompts = [prompt for tasks in task_sets().values() for own in tasks.values() for prompt in own]
    given = Conditions(
        shape_of(None),
        16 << 30,
        activations=recorded(prompts[::2]),
        footprint=ProcessFootprint.here(),
        count_from=PAUSE,
    )
    found: Figures = {}
    for number, setting in enumerate(ALONE):
        measured = measure(setting, alone(prompts[1::2], arguments.requests))
        if number == 0:
            given = calibrated(given, setting, measured)
        name = f"block_{setting.block_size}_keep_{setting.keep_alive:g}"
        found |= dict(figures(name, predict(measured.requests(), setting, given), measured))
    measured = measure(ALONE[0], together(arguments.rounds))
    found |= dict(figures("six_at_a_time", predict(measured.requests(closed=True), ALONE[0], given), measured))
    limits = {name: limit for name in found for end, limit in LIMITS.items() if name.endswith(end)}
    report(found, limits, arguments.json)


if __name__ == "__main__":
    main()
