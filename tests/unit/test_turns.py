"""Tests that are marked `alone` run while no other does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.turns import Turns


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Turns, Turns]]:
    """Those of two processes."""
    with closing(Turns(tmp_path)) as one, closing(Turns(tmp_path)) as other:
        yield one, other


def test_tests_run_side_by_side(two: tuple[Turns, Turns]) -> None:
    one, other = two
    begun = threading.Event()

    def run() -> None:
        with other.turn(alone=False):
            begun.set()

    thread = threading.Thread(target=run)
    with one.turn(alone=False):
        thread.start()
        assert begun.wait(30)
    thread.join()


@pytest.mark.parametrize("first", [False, True])
def test_one_that_runs_alone_neither_begins_nor_goes_on_beside_another(
    two: tuple[Turns, Turns], first: bool
) -> None:
    one, other = two
    begun = threading.Event()

    def run() -> None:
        with other.turn(alone=not first):
            begun.set()

    thread = threading.Thread(target=run)
    with one.turn(alone=first):
        thread.start()
        assert not begun.wait(0.1)
    assert begun.wait(30)
    thread.join()
