"""The start of a fork server that fails."""

from __future__ import annotations

import os

import pytest

from faasmoe.util import processes
from faasmoe.util.forkserver.server_process import spawn


def test_a_server_that_cannot_be_started_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> None:
        raise OSError("no memory")

    monkeypatch.setattr(processes, "start", start)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="no memory"):
        spawn("module", {})
    assert len(os.listdir("/proc/self/fd")) == before
