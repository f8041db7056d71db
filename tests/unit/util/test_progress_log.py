from __future__ import annotations

import logging
import time

import pytest

from faasmoe.util.progress_log import progress_log

log = logging.getLogger("test")


def test_long_work_tells_its_share_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with caplog.at_level(logging.INFO):
        advance = progress_log(log, "writing weights", 200)
        for _ in range(8):
            now += 2
            advance(25)
    assert caplog.messages == ["writing weights: 37 % done", "writing weights: 75 % done"]
