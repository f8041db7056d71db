from __future__ import annotations

import logging
from typing import Any

from faasmoe.util.log_rate_limit import MOST_ALIKE, MOST_KINDS, MOST_OTHERS, MOST_SEVERE, WINDOW, LogRateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def record(message: str, *values: object, level: int = logging.WARNING, **extra: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "a",
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": message,
            "args": values,
            **extra,
        }
    )


def texts(records: list[logging.LogRecord]) -> list[str]:
    return [each.getMessage() for each in records]


def test_repeated_lines_are_counted_and_told_after_the_window() -> None:
    clock = Clock()
    limit = LogRateLimit(clock)
    taken = [text for i in range(1000) for text in texts(limit.take(record("no room for %d", i)))]
    assert taken == [f"no room for {i}" for i in range(MOST_ALIKE)]
    assert texts(limit.take(record("something else"))) == ["something else"]
    clock.now = WINDOW
    assert texts(limit.take(record("third"))) == [
        f"no room for 0 (repeated {1000 - MOST_ALIKE} more times within 10 s)",
        "third",
    ]
    assert texts(limit.take(record("no room for %d", 1))) == ["no room for 1"]


def test_lines_that_differ_in_numbers_alone_are_alike() -> None:
    limit = LogRateLimit(Clock())
    taken = [limit.take(record(f"Task-{i} at 0x{i:x}\nfuture: {i * 'x'}")) for i in range(100)]
    assert sum(map(len, taken)) == MOST_ALIKE


def test_lines_of_requests_are_limited_by_reason_and_others_are_not() -> None:
    limit = LogRateLimit(Clock())
    for reason in ("one", "two"):
        refused = [limit.take(record("refused", level=logging.INFO, reason=reason)) for _ in range(100)]
        assert sum(map(len, refused)) == MOST_ALIKE
    ended = [limit.take(record("request ended", level=logging.INFO)) for _ in range(1000)]
    assert sum(map(len, ended)) == 1000


def test_all_lines_together_are_bounded_and_so_is_what_is_remembered() -> None:
    clock = Clock()
    limit = LogRateLimit(clock)
    words = [f"{'abcdefghij'[i % 10] * (1 + i // 10)}" for i in range(20 * MOST_KINDS)]
    severe = [limit.take(record(word[:100] + str(i))) for i, word in enumerate(words)]
    assert sum(map(len, severe)) <= MOST_SEVERE
    assert len(limit._kinds) <= MOST_KINDS + 1
    others = [limit.take(record("request ended", level=logging.INFO)) for _ in range(2 * MOST_OTHERS)]
    assert sum(map(len, others)) == MOST_OTHERS
    clock.now = WINDOW
    assert any(
        text.startswith("lines of many kinds were left out (repeated") for text in texts(limit.take(record("x")))
    )


def test_what_was_left_out_is_told_at_the_end() -> None:
    limit = LogRateLimit(Clock())
    for _ in range(MOST_ALIKE + 2):
        limit.take(record("again"))
    assert texts(limit.rest()) == ["again (repeated 2 more times within 10 s)"]
    assert limit.rest() == []
