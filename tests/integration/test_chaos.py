"""The short form of `scripts/chaos`: each kind of process killed and stopped once, and everything else that is done."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import Campaign, Settings
from tests.chaos.plan import covering
from tests.chaos.tree import CHILDREN
from tests.chaos.verdict import table


@pytest.mark.alone  # it judges how soon a server recovers
@pytest.mark.timeout(600)
def test_nothing_is_wrong_lost_doubled_or_charged_otherwise_whatever_happens_to_processes() -> None:
    campaign = Campaign(settings=Settings(seed=15, clients=1, quiet=0.2), plan=covering())
    facts = campaign.run()
    checks = facts.checks()
    assert all(check.ok for check in checks), f"\n{table(checks)}"
    made = {(event.fault.kind, event.fault.role) for event in facts.events if event.pids}
    assert {(kind, role) for kind in ("kill", "stop") for role in CHILDREN} <= made
    assert sum(attempt.answer.done for attempt in facts.attempts) > 30
