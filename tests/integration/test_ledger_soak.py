from __future__ import annotations

from tests.ledger_soak import CLIENTS, soak


def test_every_answered_request_is_in_the_ledger_whatever_is_killed() -> None:
    outcome = soak(gateways=1)
    assert outcome.problems() == []
    assert len(outcome.answered) >= 3 + CLIENTS
    assert outcome.kills["gateway"] == 1
    assert outcome.kills.keys() & {"orchestrator", "daemon"}
