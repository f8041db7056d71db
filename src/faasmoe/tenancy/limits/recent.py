"""Reads the usage of the last minute from the ledger when a server starts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.limits.sliding_window import SECONDS
from faasmoe.tenancy.tenants import milliseconds


@dataclass(frozen=True, slots=True)
class Recent:
    """A request that has ended a short while ago."""

    tenant: str
    began_ago: float  # seconds
    ended_ago: float
    prompt_tokens: int
    completion_tokens: int


def last_minute(database: Database, now: float) -> list[Recent]:
    """Requests that have ended in the minute before `now`, in seconds since the epoch. Raises `DatabaseError`.

    Of all servers: the ledger does not know which of them has run a request. What ends up to a minute after `now` is
    taken as ending now, since clocks are set.
    """
    table = tables.requests.c
    wanted = select(table.tenant, table.ended, table.seconds, table.prompt_tokens, table.completion_tokens).where(
        table.ended > milliseconds(now - SECONDS), table.ended <= milliseconds(now + SECONDS)
    )
    with database.read() as connection:
        return [
            Recent(row.tenant, ago + row.seconds, ago, row.prompt_tokens, row.completion_tokens)
            for row in connection.execute(wanted)
            for ago in (max(0.0, now - row.ended / 1000),)
        ]
