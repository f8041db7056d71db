from __future__ import annotations

from types import SimpleNamespace

import pytest

from faasmoe.engine.stats import StatsRecorder, StepStats
from faasmoe.protocol.stats import Distribution


def test_values_are_counted_at_the_first_bound_that_holds_them() -> None:
    values = Distribution((1, 2, 4))
    for value in (0, 1, 1.5, 4, 5):
        values.observe(value)
    assert (values.counts, values.total) == ([2, 1, 1, 1], 11.5)


def test_counts_must_fit_the_bounds() -> None:
    with pytest.raises(ValueError, match="3 bounds need 4 counts, not 2"):
        Distribution((1, 2, 3), [0, 0])


def test_steps_add_up() -> None:
    counts = SimpleNamespace(functions=0, invocations=0, cold_starts=0)
    meter = StatsRecorder(counts)
    for touched, cold in ((4, 4), (3, 0)):
        counts.functions += touched
        counts.invocations += touched + 1
        counts.cold_starts += cold
        meter.step(
            StepStats(seconds=0.5, phases={"forward": 0.25}, tokens=10, prompt_tokens=8, sequences=2, waiting=1)
        )
    figures = meter.read(2, 1, {"preemptions": 3})
    assert (figures.running, figures.waiting, figures.engine) == (2, 1, {"preemptions": 3})
    assert (figures.step_functions.total, figures.invocations) == (7, 9)
    assert sum(figures.step_functions.counts) == 2
    assert (figures.step_tokens.total, figures.step_sequences.total, figures.step_seconds.total) == (20, 4, 1)
    assert figures.phases == {"forward": 0.5}
    assert figures.cold_starts == 4


def test_what_was_read_does_not_change() -> None:
    counts = SimpleNamespace(functions=1, invocations=1, cold_starts=0)
    meter = StatsRecorder(counts)
    before = meter.read(0, 0, {})
    meter.step(StepStats(seconds=0.5, phases={}, tokens=1, prompt_tokens=1, sequences=1, waiting=0))
    assert sum(before.step_tokens.counts) == 0
