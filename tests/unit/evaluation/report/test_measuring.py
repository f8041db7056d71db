from __future__ import annotations

from dataclasses import replace

from faasmoe.evaluation.meters.meter import MeterCost
from faasmoe.evaluation.report.measuring import cost_of_measuring
from faasmoe.evaluation.results import Run
from tests.unit.evaluation.made import run


def measured(cpu: float, missed: int = 0) -> Run:
    """Ten seconds."""
    made = run("baseline")
    return run("baseline", usage=replace(made.usage, meter=MeterCost(cpu, 100, missed)))


def test_what_measuring_took_is_said_beside_the_limit() -> None:
    assert cost_of_measuring([measured(0.2), measured(0.26, missed=12)]) == (
        "the meter took 2.3 % of a core on average and 2.6 % at most, within the limit of 3.0 %, "
        "and left out 12 of 212 samples"
    )


def test_what_is_beyond_the_limit_is_said_to_be() -> None:
    assert "2.9 % of a core on average and 3.8 % at most, beyond the limit of 3.0 %" in cost_of_measuring(
        [measured(0.2), measured(0.38)]
    )


def test_without_runs_nothing_was_measured() -> None:
    assert cost_of_measuring([]) == "nothing was measured"
