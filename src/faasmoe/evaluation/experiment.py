"""Runs cases over the same requests, trial after trial, each measured from outside."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from faasmoe.errors import MeasurementError, OptionError
from faasmoe.evaluation.memory_limit import MemoryLimit, forget_files
from faasmoe.evaluation.meters.meter import Meter
from faasmoe.evaluation.meters.residency import Range
from faasmoe.evaluation.meters.thinning import thinned
from faasmoe.evaluation.results import LeftOut, Results, Run
from faasmoe.evaluation.strategies.host import Host
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import ROLES
from faasmoe.evaluation.workloads.ask import Ask

Settings = Mapping[str, str | int | float | None]

_WARM_UP_TOKENS = 4  # of a completion that does not count: a process's first step takes seconds


@dataclass(frozen=True)
class Workload:
    """Requests of some tenants, under a name: by seed, the same for every strategy. Not all have to ask every time."""

    name: str
    tenants: Sequence[str]
    asks: Callable[[int], Sequence[Ask]]
    lasts: float = 0.0  # seconds, even if all answers have come: silence belongs to what comes by the clock
    warm_up: Sequence[Ask] = ()  # comes first and does not count; nothing: a few tokens of each tenant


@dataclass(frozen=True)
class Case:
    """One case, which runs once in every trial."""

    orders: Orders
    workload: Workload
    settings: Settings  # whatever else figures depend on
    measured: int | None = None  # tenants that are run, if they are fewer
    memory_limit: int | None = None  # bytes for everything that it uses, page cache included

    @property
    def tenants(self) -> int:
        """The number of tenants, run or extrapolated."""
        return len(self.workload.tenants)

    @property
    def name(self) -> str:
        """The name of the case on a progress bar."""
        return f"{self.orders.strategy}, {self.workload.name}"

    def asks(self, seed: int) -> list[Ask]:
        """A trial's requests: those of the tenants that are run."""
        return [ask for ask in self.workload.asks(seed) if ask.tenant in self.orders.tenants]


Key = tuple[str, str, int, frozenset[tuple[str, str | int | float | None]]]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment: cases and trials. `varied` names the settings in which the cases differ."""

    name: str
    cases: Sequence[Case]
    trials: int
    seed: int = 0
    varied: Sequence[str] = ()
    left_out: Sequence[LeftOut] = field(default=())  # what is known not to be possible

    def left(self, results: Results) -> Iterator[tuple[int, Case]]:
        """Trials and cases that `results` do not have, in the order in which they are to be run.

        Cases that turn out not to be possible meanwhile are left out. Raises `OptionError` if results have some with
        other settings: figures of both would be mixed.
        """
        self._check(results)
        there = {(run.trial, _key(run)) for run in results.runs if run.experiment == self.name}
        for trial in range(self.trials):
            for case in random.Random(f"{self.seed}/{trial}").sample(list(self.cases), len(self.cases)):
                if (trial, _key_of(case)) not in there and not self._is_left_out(case, results):
                    yield trial, case

    def _check(self, results: Results) -> None:
        ours = {case.workload.name: case.settings for case in self.cases}
        for run in results.runs:
            settings = ours.get(run.workload) if run.experiment == self.name else None
            if settings is None:
                continue
            for name in settings.keys() - set(self.varied):
                if run.settings.get(name) != settings[name]:
                    raise OptionError(
                        f"--out: holds runs of {run.workload} with {name} {run.settings.get(name)}, "
                        f"not {settings[name]}; take another file"
                    )

    def _is_left_out(self, case: Case, results: Results) -> bool:
        return any(one.experiment == self.name and _key(one) == _key_of(case) for one in results.left_out)

    def add(self, trial: int, case: Case, results: Results) -> None:
        """One trial of one case. Raises `MeasurementError` if it fails, or answers with an error.

        Where memory is limited, that is a result as well, and the case is left out from then on.
        """
        try:
            results.runs.append(self._run(trial, case))
        except MeasurementError as error:
            if case.memory_limit is None:
                raise
            results.left_out.append(left_out(self.name, case, str(error)))

    def _run(self, trial: int, case: Case) -> Run:
        orders, limit = case.orders, None
        with ExitStack() as stack:
            if case.memory_limit is not None:
                limit = stack.enter_context(MemoryLimit(case.memory_limit))
                orders = msgspec.structs.replace(orders, group=str(limit.folder))
                forget_files(Path(orders.model))
            host = stack.enter_context(Host(orders))
            warm_up = case.workload.warm_up or [Ask(None, each, 8, _WARM_UP_TOKENS) for each in orders.tenants]
            host.play(warm_up)
            with Meter(ROLES.get(orders.strategy, "orchestrator"), host.pid, weights(orders.model)) as meter:
                until = time.monotonic() + case.workload.lasts
                played = host.play(case.asks(self.seed + trial))
                threading.Event().wait(max(0.0, until - time.monotonic()))
            charged = limit.most() if limit else None
        failed = next((request.error for request in played.requests if request.error), None)
        if failed:
            raise MeasurementError(f"{case.name}, trial {trial}: a request failed: {failed}")
        return Run(
            experiment=self.name,
            strategy=orders.strategy,
            workload=case.workload.name,
            trial=trial,
            tenants=case.tenants,
            settings=dict(case.settings),
            usage=thinned(meter.usage),
            requests=list(played.requests),
            invocations=played.invocations,
            cold_starts=played.cold_starts,
            extrapolated=case.measured is not None,
            measured_tenants=case.measured,
            steps=played.steps,
            phases=played.phases,
            cold_start_phases=played.cold_start_phases,
            instances=played.instances,
            memory_limit=case.memory_limit,
            memory_charged=charged,
        )


def left_out(experiment: str, case: Case, reason: str) -> LeftOut:
    """Note a case that cannot run."""
    return LeftOut(
        experiment=experiment,
        strategy=case.orders.strategy,
        workload=case.workload.name,
        tenants=case.tenants,
        settings=dict(case.settings),
        reason=reason,
    )


def _key(one: Run | LeftOut) -> Key:
    return one.strategy, one.workload, one.tenants, frozenset(one.settings.items())


def _key_of(case: Case) -> Key:
    return case.orders.strategy, case.workload.name, case.tenants, frozenset(case.settings.items())


def weights(folder: str) -> dict[str, list[Range]]:
    """The checkpoint's files, as one group for the meter of the page cache; none if the kernel would not tell."""
    files = sorted(Path(folder).glob("*.safetensors"))
    if not all(os.access(file, os.W_OK) for file in files):
        return {}
    return {"weights": [(str(file), 0, file.stat().st_size) for file in files]}
