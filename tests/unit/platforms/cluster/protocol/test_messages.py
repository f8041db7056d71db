"""Messages between clients and agents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import DeadlineExceeded, FunctionError, OptionError, PlatformError, UnknownFunction
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol import messages
from faasmoe.platforms.cluster.protocol.content import ContentFile, ContentRange, FunctionContent
from faasmoe.platforms.cluster.protocol.messages import (
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
    content = FunctionContent(b"artifact", (ContentFile("/w", 9),), (ContentRange(0, 3, 4, bytes(32)),))
    order = Install((CatalogueEntry("f", 7, spec, content, ("a", "b")), CatalogueEntry("g", 8, None)))
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


@given(st.binary(max_size=100))
def test_garbage_is_no_message(garbage: bytes) -> None:
    for read in (messages.read_asked, messages.read_answered):
        try:
            got = read(memoryview(garbage))
        except Lost:
            continue
        assert isinstance(got, messages.ClusterMessage)  # a short message can come about by chance


def test_traffic_adds_up() -> None:
    assert Traffic(1, 2, 3, 4, 0.5, 0.25) + Traffic(10, 20, 30, 40, 5, 2.5) == Traffic(11, 22, 33, 44, 5.5, 2.75)
