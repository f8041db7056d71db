from __future__ import annotations

from tests.soak import soak


def test_nothing_fails_and_nothing_grows_while_processes_are_killed() -> None:
    outcome = soak(20, daemon_every=8)
    assert outcome.problems() == []
    assert outcome.calls > 200
    assert outcome.kills > 50
    assert outcome.daemon_kills >= 1
