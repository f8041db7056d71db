"""A record of the ledger, for tests of what writes, reads or sums records."""

from __future__ import annotations

from faasmoe.tenancy.ledger.ledger import Record

RECORD = Record(
    id="cmpl-1",
    tenant="acme",
    key="fm-a",
    model="m",
    ended=1000.25,
    outcome="stop",
    prompt_tokens=9,
    cached_tokens=4,
    completion_tokens=5,
    first_token_seconds=0.25,
    seconds=1.5,
    invocations=12.5,
    expert_seconds=0.5,
    gb_seconds=0.75,
    cold_starts=1.0,
    orchestrator_cpu_seconds=0.125,
)
