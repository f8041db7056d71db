"""Control messages: each arrives as it was sent, and what is none of them is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.platforms.base import FunctionStatus, Instance, PoolStatus, PoolTotals
from faasmoe.platforms.local.protocol import messages, wire
from faasmoe.platforms.local.protocol.messages import ControlMessage, NotUnderstood
from faasmoe.platforms.local.protocol.wire import Lost
from tests.unit.platforms.local.daemon.pools import SPEC

POOL = PoolStatus(
    functions=[
        FunctionStatus(
            "f",
            "busy",
            (Instance("7", "here"), Instance("8", "here")),
            invocations=3,
            cold_starts=2,
            deaths=1,
            p50=0.5,
            memory=1 << 40,
        )
    ],
    memory_budget=None,
    memory_used=5,
    waiting=1,
    latency=[(0.5, 2)],
    cold_start_phases={"fork": (1, 0.25)},
    totals=PoolTotals(1.0, 0.5, 0.25, 3, 2),
)
REQUESTS: tuple[ControlMessage, ...] = (
    messages.Deploy((SPEC, replace(SPEC, keep_alive=math.inf), replace(SPEC, keep_alive=0.0, files=()))),
    messages.Remove(("f", "g")),
    messages.Stop(()),
    messages.Fits(("f",), 1.0),
    messages.Prewarm(("f",), 1.0),
    messages.Stuck("/f.sock", 2.5),
    messages.AskStatus(),
    messages.Activate((messages.Wanted(0, "f"), messages.Wanted(1, "g", "/lost.sock")), 0.5),
    messages.Suspect("/f.sock", 0.001),
)
REFUSALS = (
    messages.NotDeployed("f"),
    messages.DeadlinePassed("full"),
    messages.BudgetTooSmall(1 << 40, 3),
    messages.PlatformFailed("no process"),
)
REPLIES: tuple[ControlMessage, ...] = (
    messages.Completed(), messages.PoolReport(POOL), *REFUSALS
)  # fmt: skip
ACTIVATIONS: tuple[ControlMessage, ...] = (
    messages.Activated(
        number=0, path="/f.sock", scalable=True, memory=1, last_end="killed by SIGKILL", scarce=False
    ),
    *(messages.NotActivated(1, error) for error in REFUSALS),
)


def text(message: ControlMessage) -> bytes:
    return messages.pack(message)[wire.HEAD :]


def raw(message: ControlMessage) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text(message))
    return fields


def read_request(fields: dict[str, Any]) -> messages.Request:
    return messages.read_request(json.dumps(fields).encode())


def test_all_kinds_are_tested() -> None:
    assert {*map(type, REQUESTS)} == {*get_args(messages.Request)}
    assert {*map(type, REPLIES)} == {*get_args(messages.Reply)}
    assert {*map(type, REFUSALS)} == {*get_args(messages.Refusal)}
    assert {*map(type, ACTIVATIONS)} == {*get_args(messages.Activation)}


def test_messages_arrive_as_they_were_sent() -> None:
    assert tuple(messages.read_request(text(message)) for message in REQUESTS) == REQUESTS
    assert tuple(messages.read_reply(text(message)) for message in REPLIES) == REPLIES
    assert tuple(messages.read_activation(text(message)) for message in ACTIVATIONS) == ACTIVATIONS


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_without_one_of_its_fields_is_refused(message: ControlMessage) -> None:
    whole = raw(message)
    for missing in whole:
        with pytest.raises(Lost, match=missing):
            read_request({key: value for key, value in whole.items() if key != missing})


@pytest.mark.parametrize("missing", ["name", "handler", "artifact"])
def test_a_function_without_one_of_its_fields_is_refused(missing: str) -> None:
    whole = raw(messages.Deploy((SPEC,)))
    del whole["functions"][0][missing]
    with pytest.raises(Lost, match=missing):
        read_request(whole)


@pytest.mark.parametrize(
    "changes",
    [{"memory": None}, {"memory": "much"}, {"memory": 1.5}, {"concurrency": []}, {"files": 3}, {"files": [["/a", 1]]},
     {"artifact": 3}, {"artifact": None}, {"keep_alive": "long"}],
)  # fmt: skip
def test_a_function_of_other_types_is_refused(changes: dict[str, Any]) -> None:
    whole = raw(messages.Deploy((SPEC,)))
    whole["functions"][0].update(changes)
    with pytest.raises(Lost):
        read_request(whole)


@pytest.mark.parametrize(
    "nonsense",
    [{}, {"kind": "rm"}, {"kind": []}, {"operation": "status"}, {"kind": "Completed"},
     {"kind": "Activate", "wanted": [[0]], "seconds": 1}, {"kind": "Activate", "wanted": "f", "seconds": 1}],
)  # fmt: skip
def test_what_is_no_request_is_refused(nonsense: dict[str, Any]) -> None:
    with pytest.raises(NotUnderstood):
        read_request(nonsense)


READ = (messages.read_request, messages.read_reply, messages.read_activation)


@given(st.binary(max_size=100))
def test_noise_is_lost(noise: bytes) -> None:
    for read in READ:
        with pytest.raises(Lost):
            read(noise)


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("nonsense", [b"", b"{", b"{'a': 1}", b"\xff\xfe\xfd", b'{"a": 1} x', b"9" * 5000])
def test_what_is_not_json_is_refused(read: Any, nonsense: bytes) -> None:
    with pytest.raises(Lost, match="not JSON") as caught:
        read(nonsense)
    assert not isinstance(caught.value, NotUnderstood)  # nobody is told what is wrong with it


@pytest.mark.parametrize("nonsense", [b"[]", b"3", b'"{}"', b"null", b"[{}]"])
def test_what_is_no_object_is_refused(nonsense: bytes) -> None:
    with pytest.raises(Lost, match="not a JSON object") as caught:
        messages.read_request(nonsense)
    assert not isinstance(caught.value, NotUnderstood)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"a":[{"b":'])
def test_deeply_nested_json_is_refused(opening: bytes) -> None:
    with pytest.raises(Lost, match="not JSON"):
        messages.read_request(opening * 100_000)
