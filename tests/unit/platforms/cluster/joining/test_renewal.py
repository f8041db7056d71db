"""The thread that renews."""

from __future__ import annotations

import threading

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.joining import renewal
from faasmoe.platforms.cluster.joining.renewal import Renewal


def test_it_renews_again_and_again_also_after_errors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "SOON", 0.001)
    enough, times = threading.Event(), []

    def renew() -> None:
        times.append(0)
        if len(times) == 2:
            raise OptionError("not now")
        if len(times) == 4:
            enough.set()

    with Renewal(renew, 0.0, 0.001) as running:
        assert enough.wait(10)
    running.close()
    assert "not now" in caplog.text
