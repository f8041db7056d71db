"""What clients were answered against what the ledger has."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.schema import open_database
from tests.chaos.clients import Attempt
from tests.chaos.questions import Answer

SERVED = ("stop", "length")  # outcomes of requests that were answered


@dataclass(frozen=True)
class Row:
    """A request in the ledger."""

    id: str
    tenant: str
    outcome: str
    prompt_tokens: int
    completion_tokens: int


def rows(url: str) -> list[Row]:
    """All of them."""
    columns = tables.requests.c
    wanted = [columns[name] for name in Row.__dataclass_fields__]
    with open_database(url) as database, database.read() as connection:
        return [Row(*row) for row in connection.execute(select(*wanted)).all()]


def caught_up(url: str, attempts: Sequence[Attempt], seconds: float) -> bool:
    """Whether every answered request is in the ledger, at last: a full disk may have held records up."""
    wanted = {attempt.answer.id for attempt in attempts if attempt.answer.done}
    end = time.monotonic() + seconds
    while missing := wanted - {row.id for row in rows(url)}:
        if time.monotonic() > end:
            return not missing
        time.sleep(0.2)
    return True


def differences(found: Sequence[Row], attempts: Sequence[Attempt], right: Mapping[str, Answer]) -> list[str]:
    """What is not as it must be.

    An answered request has one row, with the tokens that its client was told. Any other has one at most, with no more
    tokens than a whole answer has; without an id (its client was told none) it can only be counted.
    """
    problems = []
    by_id = {row.id: row for row in found}
    told = [attempt for attempt in attempts if attempt.answer.id]
    for attempt in told:
        row = by_id.pop(attempt.answer.id, None)
        problems += _compared(attempt, row, right[attempt.question.name])
    nameless = Counter(attempt.tenant for attempt in attempts if not attempt.answer.id)
    most = Counter[str]()
    for attempt in attempts:
        if not attempt.answer.id:
            most[attempt.tenant] += right[attempt.question.name].completion_tokens
    rest, tokens = Counter[str](), Counter[str]()
    for row in by_id.values():
        rest[row.tenant] += 1
        tokens[row.tenant] += row.completion_tokens
    for tenant, count in rest.items():
        if count > nameless[tenant]:
            problems.append(f"{tenant}: {count} rows for {nameless[tenant]} requests without an answer")
        if tokens[tenant] > most[tenant]:
            problems.append(
                f"{tenant}: {tokens[tenant]} tokens for requests without an answer, {most[tenant]} at most"
            )
    return problems


def _compared(attempt: Attempt, row: Row | None, right: Answer) -> list[str]:
    answer = attempt.answer
    what = f"{answer.id} ({attempt.tenant}, {attempt.question.name})"
    if row is None:
        return [f"{what}: answered and not in the ledger"] if answer.done else []
    if row.tenant != attempt.tenant:
        return [f"{what}: charged to {row.tenant}"]
    has = (row.prompt_tokens, row.completion_tokens)
    if answer.done and (has != (answer.prompt_tokens, answer.completion_tokens) or row.outcome not in SERVED):
        used = (answer.prompt_tokens, answer.completion_tokens)
        return [f"{what}: {row.outcome} with {has} tokens in the ledger, {used} in the answer"]
    if not answer.done and (
        row.prompt_tokens > right.prompt_tokens or row.completion_tokens > right.completion_tokens
    ):
        return [f"{what}: {has} tokens for a part of an answer that has {right.completion_tokens}"]
    return []
