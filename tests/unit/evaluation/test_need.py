from __future__ import annotations

from dataclasses import replace

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.need import fitted
from faasmoe.evaluation.strategies.registry import STRATEGIES
from faasmoe.evaluation.torch_memory import Taken
from tests.unit.evaluation.test_experiment import case

GB = 10**9
CPU_BUILD = Taken(0, 0)


def test_what_memory_cannot_hold_is_refused() -> None:
    with pytest.raises(
        OptionError, match=r"--strategy baseline: 6 tenants take 62\.5 GB, and 32\.0 GB are free; .* 3$"
    ):
        fitted(case("baseline"), 10 * GB, extrapolate=False, free=32 * GB)
    with pytest.raises(OptionError, match=r"faasmoe-shared.*smaller model$"):
        fitted(case("faasmoe-shared"), 10 * GB, extrapolate=True, free=5 * GB)
    with pytest.raises(OptionError, match=r"smaller model$"):
        fitted(case("baseline"), 10 * GB, extrapolate=True, free=5 * GB)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_it_can_hold_is_left_alone(strategy: str) -> None:
    its = case(strategy)
    assert fitted(its, 10 * GB, extrapolate=True, free=100 * GB) is its


def test_fewer_tenants_of_the_baseline_stand_for_all() -> None:
    found = fitted(case("baseline"), 10 * GB, extrapolate=True, free=32 * GB)
    assert found.orders.tenants == ("t0", "t1", "t2")
    assert (found.measured, found.tenants) == (3, 6)


def test_limited_memory_is_for_the_limit_to_refuse() -> None:
    limited = replace(case("shared-full"), memory_limit=GB)
    assert fitted(limited, 10 * GB, extrapolate=False, free=1, torch=CPU_BUILD) is limited


def test_a_build_of_torch_that_takes_more_is_counted_in_each_process_that_imports_it() -> None:
    its, free = case("baseline"), 62_600_000_000
    assert fitted(its, 10 * GB, extrapolate=False, free=free, torch=CPU_BUILD) is its
    with pytest.raises(OptionError, match=r"6 tenants take 63\.5 GB"):
        fitted(its, 10 * GB, extrapolate=False, free=free, torch=Taken(own=140_000_000, files=150_000_000))
