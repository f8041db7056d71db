from __future__ import annotations

import pytest

from faasmoe.tenancy import brute_force as module
from faasmoe.tenancy.brute_force import MOST, BruteForceGuard, network


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_who_guesses_waits_and_others_do_not() -> None:
    clock = Clock()
    guesses = BruteForceGuard(clock)
    waits = []
    for _ in range(MOST + 2):
        waits.append(guesses.wrong("10.0.0.1"))
        clock.now += 1
    assert waits[:MOST] == [0] * MOST
    assert waits[MOST:] == [50, 49]
    assert guesses.wrong("10.0.0.2") == 0
    clock.now += 48
    assert guesses.wrong("10.0.0.1") == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROOM", 100)
    guesses = BruteForceGuard(Clock())
    for i in range(1000):
        guesses.wrong(f"10.0.{i // 250}.{i % 250}")
    assert len(guesses._wrong) <= 100


def test_a_client_has_a_network_of_ipv6_addresses() -> None:
    assert network("2001:db8:1:2:3:4:5:6") == network("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:3::1") != network("2001:db8:1:2::1")
    assert network("10.0.0.1") == "10.0.0.1"
    assert network("::ffff:10.0.0.1") != network("::ffff:10.0.0.2")
    assert network("") == ""
