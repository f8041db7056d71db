"""What a server says of itself, to people and to programs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from faasmoe.cli.server import announcer as module
from faasmoe.cli.server.announcer import Announcer, Greeting
from faasmoe.protocol.config import About


class PlayedTenancy:
    def __init__(self, keyless: bool) -> None:
        self.authentication = self
        self.open = keyless


@pytest.fixture(params=["text", "json"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "url_of", lambda door: f"http://host:{door}")
    monkeypatch.setattr(module, "is_loopback", lambda _: True)
    monkeypatch.setattr(module, "who_may", lambda *_: "who may use it")
    return request.param


def greeting(*, admin: Any = None, keyless: bool = True) -> Greeting:
    tenancy: Any = PlayedTenancy(keyless)
    listener: Any = 1
    about = About("qwen", 2, 7, 40, 2048)
    return Greeting(model="m", about=about, listener=listener, admin=admin, tenancy=tenancy)


def test_text_is_printed_and_json_is_logged_but_never_both(
    form: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    announcer = Announcer(form)
    announcer.stage("loading m")
    announcer.ready(greeting(admin=2))
    announcer.stopped()
    printed, logged = capsys.readouterr().out, [record.getMessage() for record in caplog.records]
    if form == "json":
        assert (printed, logged) == ("", ["loading m", "ready", "stopped"])
        told = vars(caplog.records[1])
        assert (told["url"], told["admin_url"], told["model"]) == ("http://host:1", "http://host:2", "m")
        assert (told["max_model_len"], told["access"]) == (2048, "who may use it")
        assert vars(caplog.records[0])["seconds"] >= 0
    else:
        assert logged == []
        assert "s  loading m\n" in printed
        assert "m (qwen) at http://host:1\n" in printed
        assert "the admin API is at http://host:2\n" in printed
        assert printed.endswith("stopped\n")


@pytest.mark.parametrize("keyless", [False, True])
def test_the_printed_command_has_a_key_if_one_is_needed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], keyless: bool
) -> None:
    monkeypatch.setattr(module, "url_of", lambda _: "http://host")
    monkeypatch.setattr(module, "is_loopback", lambda _: True)
    monkeypatch.setattr(module, "who_may", lambda *_: "who may use it")
    Announcer("text").ready(greeting(keyless=keyless))
    command = capsys.readouterr().out.splitlines()[-1]
    assert command.startswith("curl http://host/v1/completions")
    assert ("Authorization: Bearer KEY" in command) == (not keyless)
