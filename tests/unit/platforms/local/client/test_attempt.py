from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faasmoe.platforms.local.client.attempt import AwakeTime, Pending
from faasmoe.platforms.local.client.call_buffers import EncodedCall
from faasmoe.platforms.local.protocol.frame import Header
from tests.unit.clocks import Clock


def test_an_instance_is_suspected_again_after_twice_as_long() -> None:
    pending = Pending(0, "f", EncodedCall(Header(0, 0, 0, 0, 0, 0), (), False), 1.0)
    connection: Any = SimpleNamespace(patience=lambda work: 2.0 * work)
    tired = [second for second in range(1, 40) if pending.tires(connection, 1.0)]
    assert tired == [2, 4, 8, 16, 32]


def test_time_in_which_the_caller_was_frozen_is_not_waited() -> None:
    clock = Clock()
    awake = AwakeTime(clock)
    awake.begin(clock.now)
    for took, counts in ((0.25, 0.25), (1.5, 1.5), (70.0, 0.25), (0.1, 0.1)):
        clock.now += took
        assert round(awake.pass_(0.25), 6) == counts
    assert awake.frozen == 69.75
