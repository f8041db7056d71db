"""What `faasmoe plan --nodes` predicts of two nodes of one core each, beside what they take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.cluster.nodes import cluster, embedded, first_core, last_core
from benchmarks.decode.peers import TASKS, take_turns
from benchmarks.figures import Figures
from benchmarks.peers import Task, Took
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.model.weights.blocks import DEFAULT_BLOCK_SIZE
from faasmoe.planner.cluster import ClusterShape
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import Machine
from faasmoe.planner.plan import requests_of
from faasmoe.planner.prediction import predict
from faasmoe.planner.shape import shape_of

SETTING = Setting("shared", DEFAULT_BLOCK_SIZE, 3600.0)
MEMORY = 64 << 30  # bytes: of each machine, so that it holds everything
PAUSE = 60.0  # seconds between what is asked: nothing waits
LOOPBACK = 10e9  # bytes a second


def measure_planned(model: Path, folder: Path, rounds: int) -> Figures:
    """Milliseconds of a token after the first, of one sequence and of eight.

    How long a layer takes is taken from one sequence on the embedded platform, with its instances on one core and the
    dense part on the other; everything else is predicted from there.
    """
    tasks = {name: task for name, task in TASKS.items() if task.tokens}
    cores = [first_core(), last_core()]
    with cluster(folder, cores) as its, its.serving(model) as remote, embedded(model, [last_core()]) as local:
        took = take_turns({"local": local.run, "remote": remote.run}, tasks, rounds)
    given = Conditions(shape_of(str(model)), MEMORY, machine=Machine(cores=1), count_from=PAUSE / 2)
    one = _seconds(took["decode"]["local"], tasks["decode"])
    told = _predicted(given, tasks["decode"])
    layer = given.machine.layer + (one - told) / len(given.shape.layers)
    given = replace(given, machine=replace(given.machine, layer=max(0.0, layer)))
    nodes = replace(given, cluster=ClusterShape(nodes=len(cores), memory=MEMORY, bandwidth=LOOPBACK))
    figures: Figures = {"planned_layer_ms": given.machine.layer * 1e3}
    for name, task in tasks.items():
        measured, expected = _seconds(took[name]["remote"], task), _predicted(nodes, task)
        figures[f"planned_{name}_measured_ms"] = measured * 1e3
        figures[f"planned_{name}_predicted_ms"] = expected * 1e3
        figures[f"planned_{name}_error_percent"] = 100 * (expected / measured - 1)
    return figures


def _seconds(took: Sequence[Took], task: Task) -> float:
    """Of a step: all sequences get a token in each."""
    return statistics.median(each.decode for each in took) / task.tokens


def _predicted(given: Conditions, task: Task) -> float:
    """Seconds of a step. The first request does not count: instances start for it."""
    asks = [Ask(0.0, "first", task.prompt, task.tokens)]
    asks += [Ask(PAUSE, f"tenant-{i}", task.prompt, task.tokens) for i in range(task.sequences)]
    return predict(requests_of(asks), SETTING, given).time_per_output_token["p50"]
