from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.commands import run

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FAASMOE_DATABASE", f"sqlite:///{tmp_path / 'x.db'}")


def told(monkeypatch: pytest.MonkeyPatch, capsys: Capture, *arguments: str) -> dict:
    assert run(monkeypatch, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_tenants_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    limits = ("--weight", "3", "--rpm", "60", "--tpm", "9000", "--concurrency", "4", "--budget", "25.50USD")
    added = told(monkeypatch, capsys, "tenants", "add", "acme", *limits)
    assert {**added, "created": 0} == {
        "name": "acme", "weight": 3.0, "rpm": 60, "tpm": 9000, "concurrency": 4, "budget": "25.50USD", "created": 0,
    }  # fmt: skip
    changed = told(monkeypatch, capsys, "tenants", "set", "acme", "--rpm", "0", "--budget", "77tokens")
    assert changed == {**added, "rpm": None, "budget": "77tokens"}
    assert told(monkeypatch, capsys, "tenants", "show", "acme") == changed
    assert told(monkeypatch, capsys, "tenants", "list") == [changed]
    assert told(monkeypatch, capsys, "tenants", "remove", "acme") == {"removed": "acme"}
    assert told(monkeypatch, capsys, "tenants", "list") == []


def test_keys_for_programs(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    told(monkeypatch, capsys, "tenants", "add", "acme")
    made = told(monkeypatch, capsys, "keys", "create", "acme", "--expires-in", "1")
    assert made.pop("key").startswith(made["id"])
    assert (made["tenant"], made["admin"]) == ("acme", False)
    admin = told(monkeypatch, capsys, "keys", "create", "--admin")
    assert told(monkeypatch, capsys, "keys", "list", "acme") == [made]
    assert len(told(monkeypatch, capsys, "keys", "list")) == 2
    assert told(monkeypatch, capsys, "keys", "revoke", admin["id"])["revoked"]


def test_what_people_see(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run(monkeypatch, "tenants", "list") == 0
    assert "add one with: faasmoe tenants add NAME" in capsys.readouterr().out
    assert run(monkeypatch, "tenants", "add", "acme", "--rpm", "7") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["acme", "1", "7", "-", "-", "-"]
    assert run(monkeypatch, "keys", "create", "acme") == 0
    key, note = capsys.readouterr()
    assert note.strip().endswith(key.strip().rpartition("-")[0])
    assert run(monkeypatch, "keys", "list") == 0
    assert "good" in capsys.readouterr().out
    assert run(monkeypatch, "keys", "revoke", key.strip()) == 0
    assert run(monkeypatch, "database", "upgrade") == 0
    assert "schema 0003, was 0003" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tenants", "add", "../x"], "a tenant's name is"),
        (["tenants", "add", "x", "--budget", "lots"], "budget lots: must be"),
        (["tenants", "add", "x", "--budget", "25"], "budget 25: must be tokens a month, such as 5000000tokens"),
        (["tenants", "add", "x", "--weight", "0"], "--weight 0: must be 0.001 to 1000"),
        (["tenants", "show", "x"], "there is no tenant 'x'"),
        (["tenants", "set", "x"], "give at least one of"),
        (["keys", "create"], "name a tenant, or give --admin"),
        (["keys", "create", "x", "--admin"], "name a tenant, or give --admin"),
        (["keys", "revoke", "fm-0"], "there is no key of that id"),
        (["tenants", "list", "--database", "x.db"], "--database x.db: give sqlite:"),
    ],
)
def test_what_the_user_can_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, arguments: list[str], said: str
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err
