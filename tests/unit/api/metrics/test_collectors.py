from __future__ import annotations

from faasmoe.api.metrics.collectors import function_series
from faasmoe.platforms.base import FunctionStatus, Instance


def test_functions_are_counted_by_state_and_timed_if_they_were_called() -> None:
    never = FunctionStatus("never")
    idle = FunctionStatus("idle", "idle", (Instance("1", "n"),), invocations=3, p50=0.001, p99=0.004)
    busy = FunctionStatus(
        "busy", "busy", (Instance("1", "n"), Instance("2", "n")), invocations=1, p50=0.5, p99=0.5
    )
    series = {family.name: family.samples for family in function_series([never, idle, busy])}
    states = {sample.labels["state"]: sample.value for sample in series["faasmoe_functions"]}
    assert states == {"zero": 1, "starting": 0, "idle": 1, "busy": 1}
    quantiles = series["faasmoe_function_invocation_seconds"]
    assert {(s.labels["function"], s.labels["quantile"]): s.value for s in quantiles} == {
        ("idle", "0.5"): 0.001,
        ("idle", "0.99"): 0.004,
        ("busy", "0.5"): 0.5,
        ("busy", "0.99"): 0.5,
    }
    instances = {s.labels["function"]: s.value for s in series["faasmoe_instances"]}
    assert instances == {"never": 0, "idle": 1, "busy": 2}
