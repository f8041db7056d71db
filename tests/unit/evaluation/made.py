"""Results that nobody measured."""

from __future__ import annotations

from faasmoe.evaluation.meters.meter import MeasuredUsage, MeterCost
from faasmoe.evaluation.results import Results, Run
from faasmoe.evaluation.strategies.protocol import Answered


def run(
    strategy: str,
    trial: int = 0,
    memory: int = 1_000_000_000,
    seconds: float = 10.0,
    cpu: float = 5.0,
    **changes: object,
) -> Run:
    usage = MeasuredUsage(
        times=[0.0, seconds],
        pss={"orchestrator": [memory, memory]},
        cpu={"orchestrator": [0.0, cpu]},
        resident_times=[0.0, seconds],
        resident={"weights": [600, 800]},
        meter=MeterCost(0.1, 2, 0),
    )
    requests = [
        Answered(tenant="a", asked=0.0, first=1.0, end=3.0, prompt_tokens=7, tokens=11),
        Answered(tenant="b", asked=1.0, first=1.5, end=9.0, prompt_tokens=7, tokens=9),
    ]
    fields = {"experiment": "strategies", "workload": "paper", "tenants": 6, "settings": {"block_size": 10},
              "invocations": 40, "cold_starts": 3}  # fmt: skip
    return Run(**{"strategy": strategy, "trial": trial, "usage": usage, "requests": requests, **fields, **changes})


def results(*runs: Run) -> Results:
    return Results(command=["faasmoe", "evaluate"], model="model", model_bytes=1000, runs=list(runs))
