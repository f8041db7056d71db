"""All tenants together pay what the nodes have metered, whatever happens to nodes."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.bills import TENANTS, soaking

KILLS = 2


def test_tenants_pay_what_nodes_have_metered(tmp_path: Path) -> None:
    """Replicas and moves that serve nobody are overhead, like all that lives without working."""
    with soaking(tmp_path) as soak:
        for _ in range(KILLS):
            soak.wave(kill=True)
        soak.wave(kill=False)
        bills = soak.bills()
    assert (bills.requests, bills.failed) == (len(TENANTS) * (KILLS + 1), 0)
    # each kill may take the report of a call with it, and one call may be as long as some twenty others
    assert -0.01 < bills.lost < KILLS + 0.01, bills  # sums of parts of calls
    assert bills.off() <= 0.01 + 0.02 * max(bills.lost, 0), bills
    assert bills.lived > bills.gb_seconds > 0
