"""Messages, and heads of batches that do not fit their body."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import DeadlineExceeded, FunctionError, OptionError, PlatformError, UnknownFunction
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.messages import (
    BatchCall,
    BatchReplies,
    CallBatch,
    CatalogueEntry,
    Failure,
    Install,
    Traffic,
)
from faasmoe.platforms.local.protocol.wire import Lost


def view(value: object) -> memoryview:
    return memoryview(messages.encode(value))


def test_functions_travel_whole() -> None:
    files = (FileRange(Path("/w"), 3, 4),)
    spec = FunctionSpec("f", "m:a", Path("/a b"), memory=5, files=files, keep_alive=float("inf"), group=2)
    order = Install((CatalogueEntry("f", 7, spec, "digest", ("a", "b")), CatalogueEntry("g", 8, None)))
    assert messages.read_asked(view(order)) == order


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FunctionError("f", "ValueError", "no: good"), FunctionError),
        (UnknownFunction("local", "f", "it is not deployed"), UnknownFunction),
        (DeadlineExceeded("local", "f", "too late"), DeadlineExceeded),
        (PlatformError("local", "f", "it cannot be loaded"), PlatformError),
        (OptionError("the memory budget is too small"), OptionError),
    ],
)
def test_errors_arrive_as_what_they_were(error: Exception, kind: type[Exception]) -> None:
    failure = messages.read_answered(view(Failure.of(error)))
    assert isinstance(failure, Failure)
    got = failure.error_of("nodes", "a")
    assert type(got) is kind
    if isinstance(error, FunctionError):
        assert str(got) == str(error)
    elif isinstance(got, PlatformError):
        assert (got.platform, got.function) == ("nodes", "f")
    if kind in (DeadlineExceeded, PlatformError, OptionError):
        assert "node a" in str(got)


def test_a_batch_is_read_as_it_was_sent() -> None:
    batch = CallBatch(3, 1.5, [BatchCall("f", 4, 10, 2.0), BatchCall("g", 1, 0, 1.0)], 80, 8, [0, 2, 5, 1])
    assert call_batch.read_batch(view(batch), 5 + 24) == batch


@pytest.mark.parametrize(
    ("batch", "body"),
    [
        (CallBatch(1, 1.0, [BatchCall("f", 4, 10, 1.0)]), 5),
        (CallBatch(1, 1.0, [BatchCall("f", -4, 10, 1.0)]), -4),
        (CallBatch(1, 1.0, [BatchCall("f", 4, -1, 1.0)]), 4),
        (CallBatch(1, -1.0, []), 0),
        (CallBatch(1, 1.0, [], 80, 8, [0]), 0),
        (CallBatch(1, 1.0, [], 80, 8, [9, 2]), 16),
        (CallBatch(1, 1.0, [], 80, 8, [4, 1, 3, 1]), 16),
        (CallBatch(1, 1.0, [], 80, 8, [4, 1, 4, 1]), 16),
        (CallBatch(1, 1.0, [], 80, 8, [-1, 1]), 8),
        (CallBatch(1, 1.0, [], 80, 8, [1, 0]), 0),
        (CallBatch(1, 1.0, [], 80, -8, [1, 1]), -8),
        (CallBatch(1, 1.0, [], -8, 8, [0, 1]), 8),
    ],
)
def test_a_batch_that_does_not_fit_its_body_is_refused(batch: CallBatch, body: int) -> None:
    with pytest.raises(Lost):
        call_batch.read_batch(view(batch), body)


@pytest.mark.parametrize(
    ("replies", "body"),
    [
        (BatchReplies(1, [4], [0.1], [1]), 4),
        (BatchReplies(1, [4, 4], [0.1], [1, 1]), 8),
        (BatchReplies(1, [4, 4], [0.1, 0.1], [1, 1]), 9),
        (BatchReplies(1, [-4, 8], [0.1, 0.1], [1, 1]), 4),
    ],
)
def test_replies_that_do_not_fit_are_refused(replies: BatchReplies, body: int) -> None:
    with pytest.raises(Lost):
        call_batch.read_replies(view(replies), body, 2)


@given(st.binary(max_size=100))
def test_garbage_is_no_message(garbage: bytes) -> None:
    for read in (messages.read_asked, messages.read_answered, lambda head: call_batch.read_batch(head, 0)):
        try:
            read(memoryview(garbage))
        except Lost:
            continue


def test_traffic_adds_up() -> None:
    assert Traffic(1, 2, 3, 4) + Traffic(10, 20, 30, 40) == Traffic(11, 22, 33, 44)
