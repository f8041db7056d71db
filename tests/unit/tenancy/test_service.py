"""All of tenancy together, on a real database."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from decimal import Decimal

import pytest
from sqlalchemy import text

from faasmoe.errors import LimitExceeded
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.ledger import ledger as ledger_module
from faasmoe.tenancy.ledger.ledger import Record
from faasmoe.tenancy.service import TenancyService
from faasmoe.tenancy.tenants import Tenant, add_tenant, remove_tenant
from tests.records import RECORD
from tests.waiting import wait_until

ACME = Tenant("acme", rpm=5, tpm=100, budget=Budget(Decimal(1000)))


def record(number: int, ended: float) -> Record:
    return replace(
        RECORD, id=f"cmpl-{number}", ended=ended, prompt_tokens=10, cached_tokens=0, completion_tokens=5
    )


def test_the_last_minute_survives_a_restart(database: Database) -> None:
    add_tenant(database, ACME)
    now = time.time()
    with TenancyService(database, local=True) as tenancy:
        for number, ago in enumerate((100.0, 20.0, 1.0)):
            assert tenancy.record(record(number, now - ago)).result(30)
    again = TenancyService(database, local=True)
    assert [standing.remaining for standing in again.limits.standing(ACME)] == [3, 70]
    assert again.spending.left("acme", ACME.budget or Budget(Decimal(0))) == 1000 - 45


def test_a_database_that_cannot_be_written_forgets_nothing_and_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(ledger_module, "_LAST_SECONDS", 0.1)
    tenant = replace(ACME, rpm=None, tpm=None, budget=Budget(Decimal(20)))
    add_tenant(database, tenant)
    with TenancyService(database, local=True) as tenancy:
        with database.write() as connection:
            connection.execute(
                text("CREATE TRIGGER full BEFORE INSERT ON requests BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
            )
        monkeypatch.setattr(ledger_module, "_of_a_record", lambda _: False)
        assert tenancy.failing is None
        for number in range(2):
            assert tenancy.record(record(number, time.time())).result(30) is False
        assert wait_until(lambda: tenancy.failing is not None)
        assert "disk is full" in (tenancy.failing or "")
        for _ in range(3):
            tenancy.spending.refresh()
            with pytest.raises(LimitExceeded):
                tenancy.limits.arrive(tenant)
        assert tenancy.failures["ledger"].count > 0
        with database.write() as connection:
            connection.execute(text("DROP TRIGGER full"))
        assert wait_until(lambda: tenancy.failing is None)
        for _ in range(2):
            tenancy.spending.refresh()
            assert tenancy.spending.left("acme", Budget(Decimal(31))) == 1


@pytest.mark.parametrize(
    ("had", "has", "local", "chosen", "open_"),
    [
        (False, False, True, False, True),
        (False, False, False, False, False),
        (False, False, False, True, True),
        (True, False, True, False, False),
        (True, False, False, False, False),
        (True, False, True, True, True),
        (True, True, True, False, False),
        (True, True, True, True, False),
    ],
)
def test_who_is_let_in_without_a_key(
    database: Database,
    caplog: pytest.LogCaptureFixture,
    had: bool,
    has: bool,
    local: bool,
    chosen: bool,
    open_: bool,
) -> None:
    if had:
        add_tenant(database, ACME)
    if had and not has:
        remove_tenant(database, "acme")
    with (
        caplog.at_level(logging.WARNING),
        TenancyService(database, local=local, chosen_open=chosen) as tenancy,
    ):
        assert tenancy.authentication.open is open_
        tenancy.warn()
    said = [record.message for record in caplog.records]
    assert any("the server is open" in each for each in said) is open_
    assert any("--open has no effect" in each for each in said) is (chosen and has)
