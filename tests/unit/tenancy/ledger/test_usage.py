from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import insert

from faasmoe.errors import TenancyError
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger.ledger import Entry, Idle, Record
from faasmoe.tenancy.ledger.usage import Period, check_by, counted, priced, total_of, usage
from faasmoe.tenancy.prices import AWS_LAMBDA, Prices, read_prices
from faasmoe.tenancy.totals import Totals
from tests.records import RECORD

PERIOD = Period(date(2026, 11, 1), date(2026, 11, 30))
PRICES = Prices(
    currency="USD",
    source="",
    per_gb_second=Decimal(2),
    per_idle_gb_second=Decimal("0.5"),
    per_million_invocations=Decimal(10),
    per_million_prompt_tokens=Decimal(3),
    per_million_cached_tokens=Decimal(1),
    per_million_completion_tokens=Decimal(6),
    per_orchestrator_cpu_second=Decimal("0.25"),
)


def at(day: int, hour: int = 12, month: int = 11) -> float:
    return datetime(2026, month, day, hour, tzinfo=UTC).timestamp()


def record(number: int, tenant: str, day: int, **more: object) -> Record:
    made = replace(RECORD, id=str(number), tenant=tenant, key=f"fm-{tenant}", ended=at(day))
    return replace(made, prompt_tokens=10, cached_tokens=4, completion_tokens=5, invocations=2.5, **more)


ENTRIES: list[Entry] = [
    record(1, "acme", 1, ended=at(1, 0)),
    record(2, "acme", 1, key="fm-2", model="n"),
    record(3, "acme", 30, ended=at(30, 23), outcome="cancelled"),
    record(4, "acme", 3, outcome="error"),
    record(5, "acme", 1, ended=at(31, 23, month=10)),  # the months before and after
    record(6, "acme", 1, ended=at(1, 0, month=12)),
    record(7, "b", 2, outcome="length"),
    Idle(tenant="acme", model="m", began=at(2), ended=at(3), gb_seconds=4.0),
    Idle(tenant="c", model="m", began=at(2), ended=at(3), gb_seconds=8.0),
]


def fill(database: Database, entries: list[Entry]) -> None:
    with database.write() as connection:
        for entry in entries:
            table = tables.requests if isinstance(entry, Record) else tables.idle
            connection.execute(insert(table).values(entry.row()))


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database, ENTRIES)
    return database


def test_sums_by_tenant(filled: Database) -> None:
    acme, b, c = usage(filled, PERIOD)
    assert (acme.tenant, acme.group) == ("acme", None)
    assert acme.totals == Totals(
        requests=4,
        failed=1,
        prompt_tokens=30,
        cached_tokens=12,
        completion_tokens=15,
        invocations=10.0,
        expert_seconds=2.0,
        gb_seconds=3.0,
        idle_gb_seconds=4.0,
        cold_starts=4.0,
        orchestrator_cpu_seconds=0.5,
    )
    assert (b.tenant, b.totals.requests, b.totals.idle_gb_seconds) == ("b", 1, 0)
    assert (c.tenant, c.totals) == ("c", Totals(idle_gb_seconds=8.0))
    assert usage(filled, PERIOD, "acme") == [acme]
    assert usage(filled, PERIOD, "' OR 1=1 --") == []
    assert total_of([acme, b, c]).requests == 5


def test_sums_are_what_single_entries_add(filled: Database) -> None:
    wanted = Totals()
    for entry in ENTRIES:
        if PERIOD.bounds()[0] <= entry.ended < PERIOD.bounds()[1]:
            wanted += counted(entry)
    assert total_of(usage(filled, PERIOD)) == wanted
    for by in ("day", "model", "key"):
        assert total_of(usage(filled, PERIOD, None, check_by(by))) == wanted


def test_sums_by_day_model_and_key(filled: Database) -> None:
    days = usage(filled, PERIOD, "acme", "day")
    assert [(line.group, line.totals.requests) for line in days] == [
        ("2026-11-01", 2), ("2026-11-03", 1), ("2026-11-30", 1),
    ]  # fmt: skip
    assert days[1].totals.idle_gb_seconds == 4
    models = usage(filled, PERIOD, "acme", "model")
    assert [(line.group, line.totals.requests) for line in models] == [("m", 3), ("n", 1)]
    keys = usage(filled, PERIOD, "acme", "key")
    assert [(line.group, line.totals.requests) for line in keys] == [("", 0), ("fm-2", 1), ("fm-acme", 3)]
    with pytest.raises(TenancyError, match="must be one of day, model, key"):
        check_by("tenant; DROP TABLE")


def test_sums_by_end_user(filled: Database) -> None:
    fill(filled, [record(8, "acme", 2, user="u1", metadata='{"team":"a"}'), record(9, "acme", 3, user="u1")])
    lines = {line.group: line.totals for line in usage(filled, PERIOD, "acme", "user")}
    assert lines["u1"].requests == 2
    assert lines[""].requests == 4  # those that name none
    assert lines[""].idle_gb_seconds == 4.0


def test_what_it_costs(filled: Database) -> None:
    (line,) = usage(filled, PERIOD, "acme")
    millionths = 10 * 10 + 3 * 18 + 1 * 12 + 6 * 15
    wanted = Decimal(millionths) / 10**6 + Decimal("2") * 3 + Decimal("0.5") * 4 + Decimal("0.25") * Decimal("0.5")
    assert PRICES.cost(line.totals) == wanted
    assert line.facts(PRICES, "day")["cost"] == "8.125256"
    assert priced(line.totals, None)["cost"] is None


def test_periods() -> None:
    assert Period.parse("2026-11-01", "2026-11-30") == PERIOD
    assert Period.parse(None, "2026-11-30") == PERIOD
    assert Period.parse(None, None).first.day == 1
    for first, last in (
        ("2026-11-02", "2026-11-01"),
        ("x", None),
        (None, "2026-13-01"),
        ("2026-11-01T00:00", None),
    ):
        with pytest.raises(TenancyError):
            Period.parse(first, last)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("0001-01-01", "9999-12-31"),
        ("9999-12-31", "9999-12-31"),
        ("0001-01-01", "0001-01-01"),
        (None, "9999-12-31"),
    ],
)
def test_every_date_that_there_is_can_be_asked_for(filled: Database, first: str, last: str) -> None:
    period = Period.parse(first, last)
    begin, end = period.bounds()
    assert (end - begin) % 86400 == 0
    all_ = (period.first, period.last) == (date.min, date.max)
    assert total_of(usage(filled, period, by="day")).requests == (7 if all_ else 0)


@pytest.mark.parametrize(
    "text", ["9999-W53-7", "9999-W52-7", "10000-01-01", "0000-01-01", "-001-01-01", "2026-02-30"]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(TenancyError):
        Period.parse(text, None)


def test_prices_are_read_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "prices.toml"
    file.write_text('currency = "EUR"\nper_gb_second = 0.0000166667\nper_million_invocations = 1\n')
    prices = read_prices(file)
    assert (prices.currency, prices.per_gb_second) == ("EUR", Decimal("0.0000166667"))
    wrong = {
        "per_gb_second = 1": "the currency is missing",
        'currency = "euro"': "must be three letters",
        'currency = "EUR"\nper_gbs = 1': "per_gbs is no price; there are: currency, per_gb_second",
        'currency = "EUR"\nper_gb_second = -1': "per_gb_second is -1: must be a number, at least 0",
        'currency = "EUR"\nper_gb_second = nan': "must be a number",
        'currency = "EUR"\nper_gb_second = "1"': "must be a number",
        'currency = "EUR"\nper_gb_second = true': "must be a number",
        "currency": "not TOML",
    }
    for text, said in wrong.items():
        file.write_text(text)
        with pytest.raises(TenancyError, match=said):
            read_prices(file)
    with pytest.raises(TenancyError, match="No such file"):
        read_prices(tmp_path / "gone.toml")


def test_the_price_table_that_comes_along_is_sound() -> None:
    prices = read_prices(AWS_LAMBDA)
    assert prices.currency == "USD"
    assert "aws.amazon.com/lambda/pricing" in prices.source
    gib = Decimal("1.073741824")
    assert prices.per_gb_second * gib == pytest.approx(Decimal("0.0000166667"), rel=Decimal("1e-5"))
    assert prices.per_million_invocations == Decimal("0.20")
