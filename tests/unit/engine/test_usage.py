from __future__ import annotations

import numpy as np

from faasmoe.engine.usage import RequestUsage
from faasmoe.protocol.request import ResourceUsage


def test_a_request_sums_its_steps_and_its_own_time() -> None:
    usage = RequestUsage()
    assert usage.read() == ResourceUsage()
    for _ in range(2):
        usage.add(np.array([1.5, 2, 3, 0.5]), 4.0)
    assert usage.read() == ResourceUsage(3, 4, 6, 1, 8)
    with usage:
        before = usage.read().orchestrator_cpu_seconds
        sum(range(100_000))
        within = usage.read().orchestrator_cpu_seconds
    after = usage.read().orchestrator_cpu_seconds
    assert 8 <= before < within <= after == usage.read().orchestrator_cpu_seconds
