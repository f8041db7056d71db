"""All series of a server against the conventions of Prometheus, rule by rule, so that no new one offends.

Sources: prometheus.io/docs/practices/naming, the OpenMetrics specification, and what `promtool check metrics` asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from faasmoe.api.metrics.metrics import MOST_TENANTS
from tests.metrics import BEGIN, DOCUMENT, END, OPENMETRICS, everything, families, reference, text

ABBREVIATED = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d", "pct"}
NO_BASE_UNIT = {"milliseconds", "microseconds", "minutes", "hours", "days", "kilobytes", "megabytes", "gigabytes"}
BASE_UNITS = ("seconds", "bytes")
TYPES = {"counter", "gauge", "histogram", "summary", "untyped", "metric"}
OF_TYPES = {"total": "counter", "bucket": "histogram", "count": "", "sum": "", "created": "", "info": "info"}
OF_SCRAPES = {"job", "instance"}  # Prometheus adds these itself
BOUNDED = {"tenant", "function", "outcome", "limit", "loop", "phase", "state"}  # by what docs/metrics.md says


def offences(family: Metric) -> Iterator[str]:
    """What is wrong with a family of series, whose name is without `_total`."""
    parts = family.name.split("_")
    if not re.fullmatch(r"faasmoe(_[a-z0-9]+)+", family.name):
        yield "its name is not in snake case behind faasmoe_"
    if not re.fullmatch(r"[A-Z0-9].*[^.\s]", family.documentation):
        yield "its help is no phrase"
    if parts[-1] in OF_TYPES:
        yield f"its name ends with _{parts[-1]}, which is for samples of another type"
    for what, words in (
        ("abbreviates a unit", ABBREVIATED),
        ("has no base unit", NO_BASE_UNIT),
        ("has a type", TYPES),
    ):
        if words & set(parts):
            yield f"its name {what}"
    if any(unit in parts[:-1] for unit in BASE_UNITS):
        yield "the unit is not the end of its name"
    if family.type not in {"counter", "gauge", "histogram", "summary"}:
        yield f"its type is {family.type}"
    yield from _offences_of_labels(family)


def _offences_of_labels(family: Metric) -> Iterator[str]:
    own = {"histogram": {"le"}, "summary": {"quantile"}}.get(family.type, set())
    for name in {name for sample in family.samples for name in sample.labels} - own:
        if name in OF_SCRAPES | {"le", "quantile"}:
            yield f"it has a label {name}"
        elif name not in BOUNDED:
            yield f"nothing bounds its label {name}"
    if any(sample.name.endswith("_created") for sample in family.samples):
        yield "it has _created series"


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_all_series_keep_to_the_conventions(accept: str) -> None:
    found = families(text(everything(), accept))
    assert len(found) > 40
    assert [(family.name, offence) for family in found for offence in offences(family)] == []


def test_both_formats_say_the_same() -> None:
    made = everything()
    plain, open_metrics = (
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for one in families(page)
            for sample in one.samples
        }
        for page in (text(made), text(made, OPENMETRICS))
    )
    assert plain == open_metrics


def test_the_rules_find_what_offends() -> None:
    quantiles = GaugeMetricFamily("faasmoe_call_seconds", "Time of a call", labels=["quantile"])
    quantiles.add_metric(["0.5"], 1)
    assert list(offences(quantiles)) == ["it has a label quantile"]
    steps = Metric("faasmoe_tokens_total", "Tokens of a step", "histogram")
    assert list(offences(steps)) == ["its name ends with _total, which is for samples of another type"]
    assert list(offences(CounterMetricFamily("faasmoe_gb_seconds", "Memory over time"))) == [
        "its name abbreviates a unit"
    ]
    keys = CounterMetricFamily("faasmoe_calls", "Calls", labels=["key"])
    keys.add_metric(["fm-1"], 1)
    assert list(offences(keys)) == ["nothing bounds its label key"]


def test_a_page_does_not_grow_with_tenants_beyond_the_bound() -> None:
    few, many = (text(everything(tenants)).count("\n") for tenants in (MOST_TENANTS + 1, MOST_TENANTS + 100))
    assert many == few


def test_the_document_has_every_series_as_the_code_has_it() -> None:
    assert f"{BEGIN}\n{reference()}\n{END}" in DOCUMENT.read_text()
