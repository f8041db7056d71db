from __future__ import annotations

import itertools
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasmoe.errors import DatabaseError
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger.ledger import Entry, Idle
from faasmoe.tenancy.ledger.usage import sums_on
from faasmoe.tenancy.limits.spending import Spending
from faasmoe.tenancy.prices import Prices
from tests.unit.tenancy.ledger.test_usage import ENTRIES, PRICES, at, fill, record

TOKENS = Budget(Decimal(1000))


class Calendar:
    now = at(20)

    def __call__(self) -> float:
        return self.now


class Flaky(Database):
    """Cannot be read while `down`."""

    down = False

    def read(self):
        if self.down:
            raise DatabaseError("gone")
        return super().read()


@pytest.fixture
def calendar() -> Calendar:
    return Calendar()


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database, ENTRIES)
    return database


@pytest.fixture
def spending(filled: Database, calendar: Calendar) -> Spending:
    made = Spending(filled, PRICES, calendar)
    made.refresh()
    return made


def spent(spending: Spending, tenant: str = "acme") -> int:
    return int(1000 - spending.left(tenant, TOKENS))


def test_what_the_ledger_has_and_what_came_since(spending: Spending, filled: Database, calendar: Calendar) -> None:
    before = spent(spending)
    assert before == 30 + 15 + 15  # what a wrong clock has put into December is counted too
    late = record(100, "acme", 20, ended=calendar.now)
    spending.note(late)
    assert spent(spending) == before + 15
    fill(filled, [late])
    spending.settled([late], True)
    assert spent(spending) == before + 15
    spending.refresh()
    assert spent(spending) == before + 15
    assert (spent(spending, "b"), spent(spending, "nobody")) == (15, 0)
    assert spending.left("c", Budget(Decimal("4.5"), "USD")) == Decimal("0.5")


def test_what_the_ledger_has_not_confirmed_stays_counted(spending: Spending, calendar: Calendar) -> None:
    """As while the database can be read and not written: however often the sums are read."""
    before = spent(spending)
    entries = [record(100 + i, "acme", 20, ended=calendar.now + i) for i in range(3)]
    for entry in entries:
        spending.note(entry)
    for _ in range(5):
        calendar.now += 60
        spending.refresh()
        assert spent(spending) == before + 45
    spending.settled(entries[:1], False)  # lost for good: it was used all the same
    for _ in range(2):
        spending.refresh()
        assert spent(spending) == before + 45


def test_what_was_written_though_it_seemed_to_fail_is_counted_once(spending: Spending, filled: Database) -> None:
    before = spent(spending)
    entry = record(100, "acme", 20)
    spending.note(entry)
    fill(filled, [entry])
    spending.refresh()
    assert spent(spending) == before + 15
    spending.settled([entry], True)
    spending.refresh()
    assert spent(spending) == before + 15


def test_a_reading_that_fails_loses_nothing(filled: Database, url: str, calendar: Calendar) -> None:
    with Flaky(url) as flaky:
        spending = Spending(flaky, None, calendar)
        spending.refresh()
        before = spent(spending)
        entry = record(100, "acme", 20)
        spending.note(entry)
        fill(filled, [entry])
        spending.settled([entry], True)
        flaky.down = True
        for _ in range(3):
            with pytest.raises(DatabaseError):
                spending.refresh()
            assert spent(spending) == before + 15
        flaky.down = False
        spending.refresh()
        assert spent(spending) == before + 15


def test_a_new_month_begins_with_nothing(spending: Spending, calendar: Calendar) -> None:
    waits = record(99, "b", 30, ended=at(30, 23))
    spending.note(waits)
    calendar.now = at(1, 1, month=12)
    assert spent(spending, "b") == 0
    spending.note(record(200, "b", 1, ended=calendar.now))
    assert spent(spending, "b") == 15
    spending.settled([waits], True)
    assert spent(spending, "b") == 15
    spending.refresh()
    assert (spent(spending, "b"), spent(spending)) == (15, 15)


def test_jumps_of_the_clock_take_nothing_away(filled: Database, calendar: Calendar) -> None:
    spending = Spending(filled, None, calendar)
    spending.refresh()
    used = spent(spending)
    numbers = itertools.count(1000)

    def use() -> None:
        entry = record(next(numbers), "acme", 1, ended=calendar.now)
        spending.note(entry)
        fill(filled, [entry])
        spending.settled([entry], True)

    for when in (at(20), at(2), at(25), at(1), at(30, 23)):  # within the month
        calendar.now = when
        use()
        used += 15
        assert spent(spending) == used
        spending.refresh()
        assert spent(spending) == used
    calendar.now = at(1, month=12)  # the next one, and back again
    use()
    in_december = spent(spending)
    calendar.now = at(30)
    assert spent(spending) == in_december
    spending.refresh()
    assert spent(spending) == used + 15
    calendar.now = at(1, month=12)
    assert spent(spending) >= in_december
    spending.refresh()
    assert spent(spending) == 15 + 15  # one was there from the beginning


STEPS = st.lists(
    st.one_of(
        st.sampled_from(["note", "note", "write", "write", "lose", "refresh", "fail", "begin", "end"]),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(steps=STEPS)
def test_nothing_is_counted_twice_or_lost_in_any_order(
    database: Database, monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    """`begin` to `end` is a reading in the middle of which all else happens: its sums are taken at `begin`."""
    with database.write() as connection:
        connection.execute(tables.requests.delete())
    calendar, numbers = Calendar(), itertools.count()
    spending = Spending(database, None, calendar)
    spending.refresh()
    waiting: list[Entry] = []
    noted, script = 0, iter(steps)

    def play(until: str | None) -> None:
        nonlocal noted
        for step in script:
            if step == until:
                return
            match step:
                case "note":
                    waiting.append(record(next(numbers), "acme", 20))
                    spending.note(waiting[-1])
                    noted += 15
                case "write" if waiting:
                    entry = waiting.pop(0)
                    fill(database, [entry])
                    spending.settled([entry], True)
                case "lose" if waiting:
                    spending.settled([waiting.pop()], False)
                case "refresh" if until is None:
                    spending.refresh()
                case "begin" if until is None:
                    with monkeypatch.context() as patched:
                        patched.setattr("faasmoe.tenancy.limits.spending.sums_on", in_between)
                        spending.refresh()
                case "fail" if until is None:
                    with monkeypatch.context() as patched:
                        patched.setattr("faasmoe.tenancy.limits.spending.sums_on", broken)
                        with pytest.raises(DatabaseError):
                            spending.refresh()
            assert spent(spending) == noted

    def in_between(connection, begin):
        found = sums_on(connection, begin)
        play("end")
        return found

    def broken(connection, begin):
        raise DatabaseError("gone")

    play(None)
    spending.refresh()
    assert spent(spending) == noted


def test_budgets_of_money_need_prices_in_it(spending: Spending, filled: Database) -> None:
    assert spending.priced(Budget(Decimal(1), "USD"))
    assert not spending.priced(Budget(Decimal(1), "EUR"))
    assert not Spending(filled, None, Calendar()).priced(Budget(Decimal(1), "USD"))
    assert Spending(filled, None, Calendar()).priced(Budget(Decimal(1)))


def test_what_requests_take_at_most(database: Database, calendar: Calendar) -> None:
    usd = Budget(Decimal(1), "USD")
    prices = Prices(
        currency="USD", per_million_prompt_tokens=Decimal(3), per_million_cached_tokens=Decimal(4),
        per_million_completion_tokens=Decimal(6), per_gb_second=Decimal(2),
        per_million_invocations=Decimal(10), per_orchestrator_cpu_second=Decimal("0.25"),
        per_idle_gb_second=Decimal(9),
    )  # fmt: skip
    spending = Spending(database, prices, calendar)
    spending.refresh()
    assert spending.most(TOKENS, 10, 5) == 15
    tokens = Decimal(4 * 10 + 6 * 5) / 10**6
    assert spending.most(usd, 10, 5) == tokens
    fill(
        database,
        [record(1, "somebody", 20), Idle(tenant="somebody", model="m", began=at(2), ended=at(3), gb_seconds=8.0)],
    )
    spending.refresh()
    resources = Decimal("2.5") * 10 / 10**6 + 2 * Decimal("0.75") + Decimal("0.25") * Decimal("0.125")
    assert spending.most(usd, 10, 5) == tokens + resources / 15 * 15
    assert spending.most(usd, 0, 1) * 4 == spending.most(usd, 0, 4)  # in proportion
