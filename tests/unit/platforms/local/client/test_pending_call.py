from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from faasmoe.errors import PlatformError
from faasmoe.platforms.local.client.call_buffers import EncodedCall
from faasmoe.platforms.local.client.pending_call import AwakeTime, PendingCall, too_late
from faasmoe.platforms.local.protocol.frame import Header
from tests.unit.clocks import Clock


def call(function: str = "f", attempts: int = 1) -> PendingCall:
    return PendingCall(0, function, EncodedCall(Header(0, 0, 0, 0, 0, 0), (), False), 1.0, attempts=attempts)


def test_an_instance_is_suspected_again_after_twice_as_long() -> None:
    pending = call()
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


def test_a_call_whose_instances_die_again_and_again_fails_with_the_last_cause() -> None:
    pending = call()
    pending.cause = "its instance was lost"
    for _ in range(19):
        pending.try_again()
    with pytest.raises(PlatformError, match="20 attempts failed; its instance was lost"):
        pending.try_again()


def test_a_function_that_cannot_be_loaded_is_tried_three_times() -> None:
    pending = call()
    for _ in range(2):
        pending.not_loaded("no such file")
    with pytest.raises(PlatformError, match=r"it cannot be loaded: no such file \(3 attempts\)"):
        pending.not_loaded("no such file")


@pytest.mark.parametrize(
    ("waiting", "message"),
    [
        ([call("f")], "f.*after 1 attempt: it waits for an instance"),
        ([call("f"), call("g", attempts=3)], "g.*after 3 attempts: it waits for an instance"),
    ],
)
def test_the_deadline_of_a_batch_names_the_worst_call(waiting: list[PendingCall], message: str) -> None:
    assert re.search(message, str(too_late(waiting)))
