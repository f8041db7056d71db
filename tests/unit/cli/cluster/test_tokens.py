"""`faasmoe nodes token`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.authority.authority import Authority
from faasmoe.platforms.cluster.authority.tokens import TokenBook, read_token
from tests.unit.cli.commands import run


def test_a_token_is_shown_once_listed_and_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--cluster-folder", str(tmp_path / "cluster"))
    assert run(monkeypatch, "nodes", "token", "create", "--hours", "2", "--node", "a", *folder) == 0
    shown = capsys.readouterr()
    file = tmp_path / "token"
    file.write_text(shown.out)
    file.chmod(0o600)
    token = read_token(file)
    assert token.pin == Authority(tmp_path / "cluster").pin
    assert "it is shown only now, and good for 2 hours" in shown.err
    assert TokenBook(tmp_path / "cluster").check(token.id, token.secret, "a")

    assert run(monkeypatch, "nodes", "token", "list", "--json", *folder) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["token"], listed["node"], listed["state"]) == (token.id, "a", "good")
    assert run(monkeypatch, "nodes", "token", "revoke", token.id, *folder) == 0
    assert run(monkeypatch, "nodes", "token", "list", *folder) == 0
    table = capsys.readouterr().out
    assert token.id in table
    assert "revoked" in table
    assert token.secret not in table
    assert run(monkeypatch, "nodes", "token", "revoke", "nowhere", *folder) == 2


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["create", "--hours", "0"], "--hours 0: must be above 0"),
        (["create", "--node", "a b"], "must be 1 to 64 characters"),
        (["create", "--cluster-folder", "/proc/nowhere"], "/proc/nowhere: cannot be made"),
    ],
)
def test_options_are_checked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    error: str,
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert run(monkeypatch, "nodes", "token", *arguments) == 2
    assert error in capsys.readouterr().err


def test_without_tokens_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "nodes", "token", "list", "--cluster-folder", str(tmp_path)) == 0
    assert "make one with: faasmoe nodes token create" in capsys.readouterr().out
    assert run(monkeypatch, "nodes", "remove", "a", "--cluster-folder", str(tmp_path)) == 2
    assert "node a: none of that name has joined" in capsys.readouterr().err
