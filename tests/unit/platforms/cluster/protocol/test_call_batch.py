"""Heads of batches and of their replies, and those that do not fit their body."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.cluster.protocol import call_batch, messages
from faasmoe.platforms.cluster.protocol.call_batch import BatchCall, BatchReplies, CallBatch
from faasmoe.platforms.local.protocol.wire import Lost


def view(value: object) -> memoryview:
    return memoryview(messages.encode(value))


def test_a_batch_is_read_as_it_was_sent() -> None:
    batch = CallBatch(1.5, [BatchCall("f", 4, 10, 2.0), BatchCall("g", 1, 0, 1.0)], 80, 8, [0, 2, 5, 1])
    assert call_batch.read_batch(view(batch), 5 + 24) == batch


@pytest.mark.parametrize(
    ("batch", "body"),
    [
        (CallBatch(1.0, [BatchCall("f", 4, 10, 1.0)]), 5),
        (CallBatch(1.0, [BatchCall("f", -4, 10, 1.0)]), -4),
        (CallBatch(1.0, [BatchCall("f", 4, -1, 1.0)]), 4),
        (CallBatch(-1.0, []), 0),
        (CallBatch(1.0, [], 80, 8, [0]), 0),
        (CallBatch(1.0, [], 80, 8, [9, 2]), 16),
        (CallBatch(1.0, [], 80, 8, [4, 1, 3, 1]), 16),
        (CallBatch(1.0, [], 80, 8, [4, 1, 4, 1]), 16),
        (CallBatch(1.0, [], 80, 8, [-1, 1]), 8),
        (CallBatch(1.0, [], 80, 8, [1, 0]), 0),
        (CallBatch(1.0, [], 80, -8, [1, 1]), -8),
        (CallBatch(1.0, [], -8, 8, [0, 1]), 8),
    ],
)
def test_a_batch_that_does_not_fit_its_body_is_refused(batch: CallBatch, body: int) -> None:
    with pytest.raises(Lost):
        call_batch.read_batch(view(batch), body)


@pytest.mark.parametrize(
    ("replies", "body"),
    [
        (BatchReplies([4], [0.1], [1]), 4),
        (BatchReplies([4, 4], [0.1], [1, 1]), 8),
        (BatchReplies([4, 4], [0.1, 0.1], [1, 1]), 9),
        (BatchReplies([-4, 8], [0.1, 0.1], [1, 1]), 4),
    ],
)
def test_replies_that_do_not_fit_are_refused(replies: BatchReplies, body: int) -> None:
    with pytest.raises(Lost):
        call_batch.read_replies(view(replies), body, 2)


@given(st.binary(max_size=100))
def test_garbage_is_no_batch(garbage: bytes) -> None:
    with contextlib.suppress(Lost):
        assert call_batch.read_batch(memoryview(garbage), 0).calls is not None
