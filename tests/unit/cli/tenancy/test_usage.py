from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert

from faasmoe.tenancy.database import tables
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.ledger.ledger import Idle
from tests.records import RECORD
from tests.unit.cli.commands import run

ENDED = 1795521600.0  # 2026-11-24 12:00 UTC
PERIOD = ("--from", "2026-11-01", "--to", "2026-11-30")


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    monkeypatch.setenv("FAASMOE_DATABASE", url)
    tokens = {"prompt_tokens": 1000, "cached_tokens": 400, "completion_tokens": 500}
    record = replace(RECORD, id="1", ended=ENDED, **tokens, invocations=2e6, gb_seconds=10.0)
    with open_database(url) as opened, opened.write() as connection:
        connection.execute(insert(tables.requests).values(record.row()))
        connection.execute(
            insert(tables.idle).values(
                Idle(tenant="acme", model="m", began=ENDED - 9, ended=ENDED, gb_seconds=2.5).row()
            )
        )
        connection.execute(insert(tables.requests).values({**record.row(), "id": "2", "tenant": ""}))


@pytest.fixture
def prices(tmp_path: Path) -> str:
    file = tmp_path / "prices.toml"
    file.write_text('currency = "USD"\nper_gb_second = 0.1\nper_million_invocations = 0.25\n')
    return str(file)


def test_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prices: str) -> None:
    assert run(monkeypatch, "usage", *PERIOD, "--json", "--by", "key", "--prices", prices, "--tenant", "acme") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["from"], facts["to"], facts["by"], facts["currency"]) == (
        "2026-11-01",
        "2026-11-30",
        "key",
        "USD",
    )
    idle, key = facts["lines"]
    assert (idle["key"], idle["requests"], idle["idle_gb_seconds"], idle["cost"]) == ("", 0, 2.5, "0.000000")
    assert (key["key"], key["requests"], key["prompt_tokens"], key["cost"]) == ("fm-a", 1, 1000, "1.500000")
    assert (facts["total"]["cost"], facts["total"]["idle_gb_seconds"]) == ("1.500000", 2.5)


def test_for_spreadsheets(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "usage", *PERIOD, "--csv", "--by", "day") == 0
    nobody, acme = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (nobody["tenant"], acme["tenant"], acme["day"]) == ("", "acme", "2026-11-24")
    assert (acme["gb_seconds"], acme["cost"]) == ("10.0", "")


def test_for_people(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prices: str) -> None:
    assert run(monkeypatch, "usage", *PERIOD, "--prices", prices) == 0
    head, titles, nobody, acme, total = capsys.readouterr().out.splitlines()
    assert head == "2026-11-01 to 2026-11-30, UTC; cost in USD"
    assert titles.split()[0] == "tenant"
    assert nobody.startswith("(no tenant)")
    assert acme.split()[:3] == ["acme", "1", "0"]
    assert total.split()[0] == "all"
    assert total.split()[-1] == "3.000000"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "yesterday"], "from 'yesterday': must be a day, such as 2026-11-30"),
        (["--from", "2026-11-02", "--to", "2026-11-01"], "the first day has to come before the last"),
        (["--csv", "--json"], "--csv and --json: give one of them"),
        (["--prices", "/gone.toml"], "--prices /gone.toml: No such file"),
    ],
)
def test_what_the_user_can_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(monkeypatch, "usage", *arguments) == 2
    assert said in capsys.readouterr().err
