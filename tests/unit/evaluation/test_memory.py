from __future__ import annotations

import os

from faasmoe.evaluation.memory import PeakMemory, proportional_set_size


def test_memory_that_is_touched_is_counted() -> None:
    before = proportional_set_size(os.getpid())
    block = bytearray(os.urandom(1 << 20)) * 64
    with PeakMemory(lambda: {"me": [os.getpid()]}) as meter:
        meter.sample()
    assert meter.peaks["me"] - before > 0.9 * len(block)


def test_a_process_that_is_gone_counts_nothing() -> None:
    assert proportional_set_size(2**22 + 1) == 0
