"""Sums of usage from the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select

from faasmoe.errors import TenancyError
from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger.ledger import Entry, Idle, Record
from faasmoe.tenancy.prices import Prices
from faasmoe.tenancy.tenants import milliseconds
from faasmoe.tenancy.totals import Totals

By = Literal["day", "model", "key", "user"]
FAILED = "error"  # the outcome whose tokens are not charged
_DAY = 86_400_000  # milliseconds
_DAY_SECONDS = 86_400
_PART = 500  # ids of one query
_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True)
class Period:
    """Days from the first to the last, both included, in UTC."""

    first: date
    last: date

    @classmethod
    def parse(cls, first: str | None, last: str | None) -> Period:
        """Parse dates such as 2026-11-30. The default is the 1st of this month to today. Raises `TenancyError`."""
        today = datetime.now(UTC).date()
        end = today if last is None else _date("to", last)
        begin = end.replace(day=1) if first is None else _date("from", first)
        if begin > end:
            raise TenancyError(f"from {begin} to {end}: the first day has to come before the last")
        return cls(begin, end)

    def bounds(self) -> tuple[float, float]:
        """Begin and end in seconds since the epoch; the end is not included. Defined for every date that there is."""
        begin, end = (d.toordinal() - _EPOCH for d in (self.first, self.last))
        return float(begin * _DAY_SECONDS), float((end + 1) * _DAY_SECONDS)


@dataclass(frozen=True, slots=True)
class Line:
    """The usage of one tenant, or of one day, model, key or end user of it if the sums are grouped."""

    tenant: str  # "": whoever asked while there were no tenants
    group: (
        str | None
    )  # None: all together. Of keys and users, "" for idle instances; of users, also for nobody named
    totals: Totals

    def facts(self, prices: Prices | None, by: By | None) -> dict[str, Any]:
        """The row as JSON and CSV have it."""
        facts: dict[str, Any] = {"tenant": self.tenant}
        if by is not None:
            facts[by] = self.group
        return {**facts, **priced(self.totals, prices)}


def priced(totals: Totals, prices: Prices | None) -> dict[str, Any]:
    """Sums with their cost, to a millionth, as bills have it before they are rounded; None without prices."""
    return {**asdict(totals), "cost": None if prices is None else f"{prices.cost(totals):.6f}"}


def usage(database: Database, period: Period, tenant: str | None = None, by: By | None = None) -> list[Line]:
    """A line for each tenant, or for that one, and for each day, model, key or user if `by` says so, in that order.

    Raises `DatabaseError`.
    """
    found = sums(database, *period.bounds(), tenant, by)
    order = sorted(found, key=lambda item: (item[0], item[1] or ""))
    return [Line(*key, found[key]) for key in order]


def sums(
    database: Database, begin: float, end: float, tenant: str | None = None, by: By | None = None
) -> dict[tuple[str, str | None], Totals]:
    """Sums over records that ended from `begin` to before `end` (seconds since the epoch), by tenant and group.

    Raises `DatabaseError`.
    """
    found: dict[tuple[str, str | None], Totals] = {}
    with database.read() as connection:
        for query, columns in _queries(by):
            wanted = query.where(columns.ended >= milliseconds(begin), columns.ended < milliseconds(end))
            if tenant is not None:
                wanted = wanted.where(columns.tenant == tenant)
            _add(found, connection, wanted, by)
    return found


def sums_on(connection: Connection, begin: float) -> dict[str, Totals]:
    """Sums over records that ended from `begin` on, by tenant, including those that a wrong clock dated later."""
    found: dict[tuple[str, str | None], Totals] = {}
    for query, columns in _queries(None):
        _add(found, connection, query.where(columns.ended >= milliseconds(begin)), None)
    return {tenant: totals for (tenant, _), totals in found.items()}


def written(connection: Connection, entries: Sequence[Entry]) -> set[str]:
    """The ids that are in the ledger, out of those given."""
    found = set[str]()
    for table, kind in ((tables.requests, Record), (tables.idle, Idle)):
        ids = [entry.id for entry in entries if isinstance(entry, kind)]
        for begin in range(0, len(ids), _PART):
            wanted = select(table.c.id).where(table.c.id.in_(ids[begin : begin + _PART]))
            found.update(connection.execute(wanted).scalars())
    return found


def total_of(lines: Iterable[Line]) -> Totals:
    """The sum of all."""
    total = Totals()
    for line in lines:
        total += line.totals
    return total


def counted(entry: Entry) -> Totals:
    """The amounts that one ledger entry adds to sums."""
    if not isinstance(entry, Record):
        return Totals(idle_gb_seconds=entry.gb_seconds)
    used = {name: getattr(entry, name) for name in _USED}
    if entry.outcome == FAILED:
        return Totals(requests=1, failed=1, **used)
    return Totals(
        requests=1,
        failed=0,
        prompt_tokens=entry.prompt_tokens,
        cached_tokens=entry.cached_tokens,
        completion_tokens=entry.completion_tokens,
        **used,
    )


def check_by(text: str | None) -> By | None:
    """Raises `TenancyError` if usage cannot be summed up by that."""
    if text is None or text in get_args(By):
        return text  # type: ignore[return-value]
    raise TenancyError(f"by {text[:20]!r}: must be one of {', '.join(get_args(By))}")


_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
_USED = ("invocations", "expert_seconds", "gb_seconds", "cold_starts", "orchestrator_cpu_seconds")
_KINDS = {field.name: int if isinstance(field.default, int) else float for field in fields(Totals)}


def _of_requests(by: By | None) -> Select[Any]:
    columns = tables.requests.c
    failed = columns.outcome == FAILED
    sums: Sequence[ColumnElement[Any]] = [
        func.count().label("requests"),
        func.sum(case((failed, 1), else_=0)).label("failed"),
        *(func.sum(case((failed, 0), else_=columns[name])).label(name) for name in _TOKENS),
        *(func.sum(columns[name]).label(name) for name in _USED),
    ]
    keys: dict[By | None, ColumnElement[Any]] = {
        "day": columns.ended // _DAY,
        "model": columns.model,
        "key": columns.key,
        "user": columns.user,
        None: literal(0),
    }
    return _grouped(columns.tenant, keys[by], sums)


def _of_idle(by: By | None) -> Select[Any]:
    columns = tables.idle.c
    sums = [func.sum(columns.gb_seconds).label("idle_gb_seconds")]
    keys: dict[By | None, ColumnElement[Any]] = {
        "day": columns.ended // _DAY,
        "model": columns.model,
        "key": literal(""),
        "user": literal(""),
        None: literal(0),
    }
    return _grouped(columns.tenant, keys[by], sums)


def _queries(by: By | None) -> tuple[tuple[Select[Any], Any], ...]:
    return (_of_requests(by), tables.requests.c), (_of_idle(by), tables.idle.c)


def _add(
    found: dict[tuple[str, str | None], Totals], connection: Connection, wanted: Select[Any], by: By | None
) -> None:
    for row in connection.execute(wanted).mappings():
        values = dict(row)
        name, group = values.pop("tenant"), _named(values.pop("grouped"), by)
        total = found.setdefault((name, group), Totals())
        total += Totals(**{key: _number(key, value) for key, value in values.items()})


def _grouped(
    tenant: ColumnElement[Any], key: ColumnElement[Any], sums: Sequence[ColumnElement[Any]]
) -> Select[Any]:
    """PostgreSQL takes a constant for the number of a column, so groups go by the label."""
    grouped = key.label("grouped")
    return select(tenant, grouped, *sums).group_by(tenant, grouped)


def _named(group: Any, by: By | None) -> str | None:
    if by is None:
        return None
    if by == "day":
        return str(date(1970, 1, 1) + timedelta(days=int(group)))
    return str(group)


def _number(name: str, value: Any) -> Any:
    return _KINDS[name](value)


def _date(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except (ValueError, OverflowError):  # the last ISO week of the year 9999 ends after it
        raise TenancyError(f"{name} {text[:20]!r}: must be a day, such as 2026-11-30") from None
