from __future__ import annotations

from tests.ledger_soak import soak


def test_every_answered_request_is_in_the_ledger_whatever_is_killed() -> None:
    outcome = soak(15)
    assert outcome.problems() == []
    assert len(outcome.answered) > 20
    assert outcome.kills.get("gateway", 0) >= 1
    assert sum(outcome.kills.values()) >= 4
