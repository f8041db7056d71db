"""Commands that are run in this process."""

from __future__ import annotations

import sys

import pytest

from faasmoe.cli import main as command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["faasmoe", *arguments])
    with pytest.raises(SystemExit) as caught:
        command.main()
    return int(caught.value.code or 0)
