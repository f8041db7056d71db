from __future__ import annotations

import pytest

from faasmoe.tenancy.calendar import PATIENCE, STEP, Calendar, since_boot

MONTH = 31 * 86400.0


class Clocks:
    told = 1e9
    elapsed = 5.0

    def go(self, seconds: float) -> None:
        self.told += seconds
        self.elapsed += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def calendar(clocks: Clocks) -> Calendar:
    return Calendar(lambda: clocks.told, lambda: clocks.elapsed)


def test_it_goes_with_the_clock(calendar: Calendar, clocks: Clocks) -> None:
    for seconds in (1, 3600, MONTH):  # however long nobody asks
        clocks.go(seconds)
        assert calendar() == clocks.told
    for seconds in (STEP, -STEP, 1):
        clocks.told += seconds
        assert calendar() == clocks.told


@pytest.mark.parametrize("jump", [MONTH, -MONTH, 3600, -3600])
def test_a_jump_that_is_undone_is_not_seen(calendar: Calendar, clocks: Clocks, jump: float) -> None:
    clocks.told += jump
    for _ in range(9):
        assert calendar() == clocks.told - jump
        clocks.go(PATIENCE / 10)
    clocks.told -= jump
    assert calendar() == clocks.told
    clocks.told += jump  # its patience begins anew
    assert calendar() == clocks.told - jump
    clocks.go(PATIENCE - 1)
    assert calendar() == clocks.told - jump


@pytest.mark.parametrize("jump", [MONTH, -MONTH])
def test_a_jump_that_lasts_is_followed(
    calendar: Calendar, clocks: Clocks, jump: float, caplog: pytest.LogCaptureFixture
) -> None:
    clocks.told += jump
    assert calendar() == clocks.told - jump
    clocks.go(PATIENCE)
    assert calendar() == clocks.told
    clocks.go(1)
    assert calendar() == clocks.told
    assert len(caplog.records) == 1


def test_each_jump_has_to_last(calendar: Calendar, clocks: Clocks) -> None:
    right = clocks.told
    for jump in (MONTH, 2 * MONTH, 3 * MONTH):
        clocks.told = right + jump
        assert calendar() == right
        clocks.go(PATIENCE - 1)
        right += PATIENCE - 1
        assert calendar() == right


def test_time_since_boot_goes_on() -> None:
    assert 0 < since_boot() <= since_boot()
