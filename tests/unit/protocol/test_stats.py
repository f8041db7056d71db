from __future__ import annotations

from faasmoe.protocol.stats import Distribution, EngineStats


def test_figures_of_several_orchestrators_are_added() -> None:
    one = EngineStats(
        running=1, invocations=5, phases={"forward": 1.0}, engine={"preemptions": 2, "kv_cache_tokens": 9}
    )
    two = EngineStats(waiting=2, invocations=1, phases={"forward": 0.5, "sample": 1.0}, engine={"preemptions": 1})
    one.step_seconds.observe(0.002)
    two.step_seconds.observe(0.002)
    both = one + two
    assert (both.running, both.waiting, both.invocations) == (1, 2, 6)
    assert both.phases == {"forward": 1.5, "sample": 1.0}
    assert both.engine == {"preemptions": 3, "kv_cache_tokens": 9}
    assert both.step_seconds.counts[1] == 2
    assert both.step_seconds.total == 0.004
    assert one.step_seconds.counts[1] == 1  # neither is changed


def test_only_counts_outlive_an_orchestrator() -> None:
    figures = EngineStats(running=1, waiting=2, cold_starts=3, engine={"preemptions": 2, "kv_cache_tokens": 9})
    assert figures.counted() == EngineStats(cold_starts=3, engine={"preemptions": 2})


def test_distributions_keep_their_bounds() -> None:
    total = Distribution((1.0, 2.0), [1, 0, 2], 9.0) + Distribution((1.0, 2.0), [0, 1, 1], 5.0)
    assert total == Distribution((1.0, 2.0), [1, 1, 3], 14.0)
