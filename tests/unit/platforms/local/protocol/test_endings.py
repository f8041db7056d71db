from __future__ import annotations

import signal

import pytest

from faasmoe.platforms.local.protocol.endings import cause_of, ended_by_itself


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (0, ""),
        (3, "it ended with status 3"),
        (-signal.SIGSEGV, "killed by SIGSEGV"),
        (-signal.SIGBUS, "killed by SIGBUS: a file that it maps was cut short or cannot be read"),
        (-40, "killed by signal 40"),
    ],
)
def test_why_a_process_ended(status: int, cause: str) -> None:
    assert cause_of(status) == cause


def test_who_should_not_have_ended_has_said_why() -> None:
    assert ended_by_itself(0) == "it ended with status 0; its messages say why"
    assert ended_by_itself(-signal.SIGKILL).startswith("killed by SIGKILL")
    assert ended_by_itself(None).startswith("killed by SIGKILL")
