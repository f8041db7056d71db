"""Runs strategies over the same requests, trial after trial, each measured from outside."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from faasmoe.errors import MeasurementError, OptionError
from faasmoe.evaluation.meters.meter import Meter
from faasmoe.evaluation.meters.residency import Range
from faasmoe.evaluation.meters.thinning import thinned
from faasmoe.evaluation.results import Results, Run
from faasmoe.evaluation.strategies.host import Host
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import BASELINE, ROLES, STRATEGIES
from faasmoe.evaluation.workloads.ask import Ask

NAME = "strategies"
_BESIDE_WEIGHTS = 400 << 20  # bytes of a process that runs a full model
_WARM_UP_TOKENS = 4  # of an answer that does not count: a process's first step takes seconds


@dataclass(frozen=True)
class Experiment:
    """What to run. `workload(seed)` gives a trial's requests, the same for every strategy; `orders` name none yet."""

    orders: Orders
    strategies: Sequence[str]
    workload: Callable[[int], Sequence[Ask]]
    workload_name: str
    settings: dict[str, str | int | float | None]  # whatever else figures depend on
    trials: int
    seed: int = 0

    def __post_init__(self) -> None:
        for strategy in self.strategies:
            if strategy not in STRATEGIES:
                raise OptionError(f"--strategy {strategy}: there are {', '.join(STRATEGIES)}")

    def check_fits(self, model_bytes: int) -> None:
        """Raises `OptionError` if memory cannot hold a full model for each tenant, and that is asked for."""
        if BASELINE not in self.strategies:
            return
        needed = len(self.orders.tenants) * (model_bytes + _BESIDE_WEIGHTS)
        free = psutil.virtual_memory().available
        if needed > free:
            raise OptionError(
                f"--strategy {BASELINE}: {len(self.orders.tenants)} full models take {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB are free; leave it out, or take fewer --tenants or --layers"
            )

    def left(self, results: Results) -> Iterator[tuple[int, str]]:
        """Trials and strategies that `results` do not have, in the order in which they are to be run.

        Raises `OptionError` if they have some with other settings: figures of both would be mixed.
        """
        its = [run for run in results.runs if (run.experiment, run.workload) == (NAME, self.workload_name)]
        for run in its:
            if run.settings != self.settings:
                other = next(name for name in self.settings if run.settings.get(name) != self.settings[name])
                raise OptionError(
                    f"--out: holds runs of {self.workload_name} with {other} {run.settings.get(other)}, "
                    f"not {self.settings[other]}; take another file"
                )
        there = {(run.trial, run.strategy) for run in its}
        for trial in range(self.trials):
            order = random.Random(f"{self.seed}/{trial}").sample(list(self.strategies), len(self.strategies))
            yield from ((trial, one) for one in order if (trial, one) not in there)

    def run(self, trial: int, strategy: str) -> Run:
        """One trial of one strategy. Raises `MeasurementError` if it fails, or answers with an error."""
        asks = self.workload(self.seed + trial)
        orders = msgspec.structs.replace(self.orders, strategy=strategy)
        with Host(orders) as host:
            host.play([Ask(None, tenant, 8, _WARM_UP_TOKENS) for tenant in orders.tenants])
            role = ROLES.get(strategy, "orchestrator")
            with Meter(role, host.pid, weights(orders.model)) as meter:
                played = host.play(asks)
        failed = next((request.error for request in played.requests if request.error), None)
        if failed:
            raise MeasurementError(f"{strategy}, trial {trial}: a request failed: {failed}")
        return Run(
            NAME, strategy, self.workload_name, trial, len(orders.tenants), self.settings, thinned(meter.usage),
            list(played.requests), played.invocations, played.cold_starts,
        )  # fmt: skip


def weights(folder: str) -> dict[str, list[Range]]:
    """The checkpoint's files, as one group for the meter of the page cache; none if the kernel would not tell."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not all(os.access(file, os.W_OK) for file in files):
        return {}
    return {"weights": [(str(file), 0, file.stat().st_size) for file in files]}
