from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from faasmoe.errors import TenancyError
from faasmoe.tenancy.budget import Budget, month_of


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5000000tokens", Budget(Decimal(5000000))),
        ("12 tokens", Budget(Decimal(12))),
        ("25.50USD", Budget(Decimal("25.50"), "USD")),
        ("0.01 EUR", Budget(Decimal("0.01"), "EUR")),
    ],
)
def test_budgets_are_read_as_they_are_written(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    "text", ["", "0", "25", "0USD", "-5", "1.5tokens", "1e9", "5 usd", "many", "1\n2", "٣", "1" * 31, "NaN"]
)
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(TenancyError, match=r"^budget .*must be tokens a month, such as 5000000tokens, or"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("now", "begin", "end"),
    [
        ("2026-11-30T23:59:59", "2026-11-01", "2026-12-01"),
        ("2026-12-31T23:59:59", "2026-12-01", "2027-01-01"),
        ("2028-02-29T12:00:00", "2028-02-01", "2028-03-01"),
        ("2027-01-01T00:00:00", "2027-01-01", "2027-02-01"),
    ],
)
def test_months_are_those_of_the_calendar(now: str, begin: str, end: str) -> None:
    def seconds(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert month_of(seconds(now)) == (seconds(begin), seconds(end))
