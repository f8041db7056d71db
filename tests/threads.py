"""Threads of this process that run code of the package: what a test has not closed lives on in those after it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tests.waiting import wait_until

_END_SECONDS = 10.0  # for threads that were told to end, and are not waited for


def running() -> set[threading.Thread]:
    """Those that run such code now."""
    frames = sys._current_frames()
    here = threading.current_thread(), threading.main_thread()
    return {each for each in threading.enumerate() if each not in here and _is_ours(frames.get(each.ident or 0))}


def _is_ours(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "faasmoe":
            return True
        frame = frame.f_back
    return False


@contextmanager
def none_left(seconds: float = _END_SECONDS) -> Iterator[None]:
    """Fails if threads that have begun meanwhile do not end within `seconds` after."""
    before = running()
    yield
    ended = wait_until(lambda: not running() - before, seconds)
    assert ended, f"threads were left running: {', '.join(sorted(each.name for each in running() - before))}"
