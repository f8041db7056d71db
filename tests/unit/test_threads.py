"""What finds threads that tests leave running."""

from __future__ import annotations

import threading

import pytest

from faasmoe.platforms.cluster.joining.renewal import Renewal
from tests import threads


def test_a_thread_of_ours_that_is_left_running_is_named() -> None:
    with pytest.raises(AssertionError, match="left running: renewal"), threads.none_left(0.0):
        left = Renewal(lambda: None)
    left.close()


def test_others_and_those_that_end_are_not() -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    with threads.none_left(0.0):
        other.start()
        Renewal(lambda: None).close()
    end.set()
    other.join()
