"""The experiments: the cases of each, and the settings in which cases differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from faasmoe.errors import OptionError
from faasmoe.evaluation.experiment import Case, Experiment, Settings, Workload, left_out
from faasmoe.evaluation.need import fitted
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import FAASMOE_SHARED, LLAMACPP, SHARED_FULL, STRATEGIES
from faasmoe.evaluation.workloads.ask import Ask

WorkloadOf = Callable[[int], Workload]  # of so many tenants
PRESSURE = (FAASMOE_SHARED, SHARED_FULL, LLAMACPP)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The settings that all cases of an experiment share; `orders` name no strategy and no tenants yet."""

    name: str  # of the model
    orders: Orders
    settings: Settings
    trials: int
    seed: int = 0
    extrapolate: bool = False

    @property
    def model_bytes(self) -> int:
        """Size of the checkpoint's weights in bytes."""
        return sum(file.stat().st_size for file in Path(self.orders.model).glob("*.safetensors"))

    def case(self, strategy: str, workload: WorkloadOf, tenants: int, **changes: float) -> Case:
        """One case. `changes` are settings that differ from `orders`. Raises `OptionError` for an unknown strategy."""
        if strategy not in STRATEGIES:
            raise OptionError(f"--strategy {strategy}: must be one of {', '.join(STRATEGIES)}")
        its = workload(tenants)
        orders = msgspec.structs.replace(self.orders, strategy=strategy, tenants=tuple(its.tenants), **changes)
        return Case(orders, its, {**self.settings, **changes})

    def fitted(self, cases: Iterable[Case]) -> list[Case]:
        """All cases. Raises `OptionError` if memory cannot hold one."""
        return [fitted(case, self.model_bytes, self.extrapolate) for case in cases]


def strategies(base: Base, chosen: Sequence[str], workload: WorkloadOf, tenants: int) -> Experiment:
    """Compare strategies."""
    cases = base.fitted(base.case(strategy, workload, tenants) for strategy in chosen)
    return Experiment(name="strategies", cases=cases, trials=base.trials, seed=base.seed)


def blocks(base: Base, sizes: Sequence[int], workload: WorkloadOf, tenants: int) -> Experiment:
    """Compare block sizes."""
    cases = base.fitted(base.case(FAASMOE_SHARED, workload, tenants, block_size=size) for size in sizes)
    return Experiment(name="blocks", cases=cases, trials=base.trials, seed=base.seed, varied=("block_size",))


def keepalive(base: Base, seconds: Sequence[float], workload: WorkloadOf, tenants: int) -> Experiment:
    """Compare keep-alives with one full model, which is always kept."""
    kept = [base.case(FAASMOE_SHARED, workload, tenants, keep_alive=each) for each in seconds]
    cases = base.fitted([*kept, base.case(SHARED_FULL, workload, tenants)])
    return Experiment(name="keepalive", cases=cases, trials=base.trials, seed=base.seed, varied=("keep_alive",))


def overhead(base: Base, workload: WorkloadOf, tenants: int) -> Experiment:
    """Measure the parts of a token's time, with functions and with experts inside the engine's process."""
    cases = base.fitted(base.case(strategy, workload, tenants) for strategy in (FAASMOE_SHARED, SHARED_FULL))
    return Experiment(name="overhead", cases=cases, trials=base.trials, seed=base.seed)


def tenants(base: Base, counts: Sequence[int], chosen: Sequence[str], workload: WorkloadOf) -> Experiment:
    """Compare numbers of tenants. Cases that memory cannot hold are left out and noted in the results."""
    name, cases, too_large = "tenants", [], []
    for count in counts:
        for strategy in chosen:
            case = base.case(strategy, workload, count)
            try:
                cases += base.fitted([case])
            except OptionError as error:
                too_large.append(left_out(name, case, str(error)))
    return Experiment(name=name, cases=cases, trials=base.trials, seed=base.seed, left_out=too_large)


def pressure(base: Base, percents: Sequence[int], chosen: Sequence[str], ask: Ask, warm_up: Ask) -> Experiment:
    """The whole system in so many percent of the checkpoint's size, page cache included: one sequence at a time."""
    return Experiment(
        name="pressure",
        cases=list(_limited(base, percents, chosen, ask, warm_up)),
        trials=base.trials,
        seed=base.seed,
    )


def _limited(base: Base, percents: Sequence[int], chosen: Sequence[str], ask: Ask, warm_up: Ask) -> Iterator[Case]:
    for percent in percents:
        if not 1 <= percent <= 1000:
            raise OptionError(f"--percent {percent}: must be 1 to 1000, of the checkpoint's size")
        limit = base.model_bytes * percent // 100
        workload = Workload(f"{percent} %", [ask.tenant], lambda seed: [ask], warm_up=[warm_up])
        for strategy in chosen:
            if strategy not in PRESSURE:
                raise OptionError(f"--strategy {strategy}: must be one of {', '.join(PRESSURE)}")
            orders = msgspec.structs.replace(
                base.orders, strategy=strategy, tenants=(ask.tenant,), memory_limit=limit
            )
            yield Case(orders, workload, base.settings, memory_limit=limit)
