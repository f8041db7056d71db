from __future__ import annotations

from dataclasses import replace

from faasmoe.evaluation.claims import judge
from faasmoe.evaluation.groups import groups_of
from faasmoe.evaluation.meters.meter import MeterCost
from faasmoe.evaluation.report.tables import claims_table, cost_of_measuring, figures_table
from faasmoe.evaluation.results import Run
from tests.unit.evaluation.made import results, run


def test_figures_that_nobody_has_are_left_out() -> None:
    groups = groups_of(
        results(run("baseline", invocations=0, cold_starts=0), run("shared-full", invocations=0, cold_starts=0))
    )
    table = figures_table({"strategy": ["baseline", "shared-full"]}, groups)
    assert table.columns[:3] == ("strategy", "memory, GB", "peak memory, GB")
    assert not {"invocations a token", "cold starts"} & set(table.columns)
    assert table.rows[0][:2] == ("baseline", "1.00")
    assert table.notes == ("One trial.",)


def test_cells_that_are_extrapolated_are_marked_and_those_of_time_are_empty() -> None:
    runs = [run("baseline", trial, extrapolated=True, measured_tenants=3) for trial in range(2)]
    (group,) = groups_of(results(*runs))
    table = figures_table({"strategy": ["baseline"]}, [group])
    assert table.rows[0][1] == "2.00 ± 0.00 †"
    assert not any(name.startswith("response") for name in table.columns)
    assert table.notes == (
        "† extrapolated from 3 tenants",
        "Means of 2 trials, ± half of the 95 % interval.",
    )


def test_markdown_has_labels_on_the_left() -> None:
    groups = groups_of(results(run("baseline")))
    text = figures_table({"strategy": ["baseline"]}, groups, ["memory_mean_bytes"]).markdown()
    assert text == "| strategy | memory, GB |\n| --- | --: |\n| baseline | 1.00 |\n\nOne trial."


def test_claims_have_a_row_each_measured_or_not() -> None:
    table = claims_table(judge({"made": results(run("faasmoe-shared", memory=100), run("baseline", memory=1000))}))
    rows = {row[0]: row[2:] for row in table.rows}
    assert rows["`memory_vs_baseline`"] == ("0.100", "", "1", "≤ 0.2", "0.332", "reached")
    assert rows["`pressure_vs_llamacpp`"] == ("", "", "", "≥ 1", "", "not measured")


def test_of_several_files_each_verdict_says_of_which_it_is() -> None:
    """Even if all of them are of one: whoever reads it does not know that."""
    both = judge({"first": results(run("faasmoe-shared"), run("baseline")), "second": results()})
    table = claims_table(both, several=True)
    files = {row[0]: row[-1] for row in table.rows}
    assert table.columns[-1] == "results"
    assert files["`memory_vs_baseline`"] == "first"
    assert files["`pressure_vs_llamacpp`"] == ""


def test_how_many_trials_there_were_is_said_where_that_differs() -> None:
    groups = groups_of(results(run("shared-full"), run("shared-full", 1), run("baseline")))
    table = figures_table({"strategy": [group.kind.strategy for group in groups]}, groups)
    assert table.columns[:2] == ("strategy", "trials")
    assert [row[:2] for row in table.rows] == [("shared-full", "2"), ("baseline", "1")]
    assert table.notes == ("Means of 1 to 2 trials, ± half of the 95 % interval.",)


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
