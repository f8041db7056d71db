from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from faasmoe.api.chat.reply import ReplyFormat
from faasmoe.api.interface import ErrorInfo, Head, Usage
from faasmoe.api.parsed_request import ParsedRequest
from faasmoe.api.response_store import TTL, ResponseStore
from faasmoe.api.responses.endpoints import Responses
from faasmoe.api.responses.responses import ResponseObject, ResponsePlan, TypedEvents
from faasmoe.errors import RequestError
from faasmoe.protocol.request import Piece, SamplingParams
from tests.unit.clocks import Clock

TEXT = (
    'Hm.</think>I look.\n<tool_call>\n{"name": "f", "arguments": {"x": [1, "é"]}}\n</tool_call>\n'
    '<tool_call>\n{"name": "patch", "arguments": {"input": "a\\nb"}}\n</tool_call>'
)
USAGE = Usage(9, 7, 4)
ECHOED = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0}
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def head(*, items: str | None = None) -> Head[ResponsePlan]:
    form = ReplyFormat(thinking="think", opened=True, calls="hermes")
    plan = ResponsePlan(reply=form, echoed=ECHOED, items=items, custom=["patch"])
    parsed = ParsedRequest(prompts=((1,) * 9,), params=SamplingParams(), own=plan)
    return Head(id="resp-1", created=0, model="m", prompt_tokens=9, parsed=parsed, tenant="t")


def read(sent: bytes) -> list[dict[str, Any]]:
    found = []
    for number, block in enumerate(sent.decode().strip().split("\n\n")):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
        assert found[-1]["sequence_number"] == number
        EVENT.validate_python(found[-1])
    return found


def pieces_of(texts: list[str], reason: str = "stop") -> list[Piece]:
    return [Piece(text, i + 1, reason if i == len(texts) - 1 else None) for i, text in enumerate(texts)]


def streamed(pieces: list[Piece], store: ResponseStore, items: str | None = None) -> list[dict[str, Any]]:
    stream = TypedEvents(head(items=items), store)
    return read(stream.begin() + b"".join(stream.piece(0, piece) for piece in pieces) + stream.end(USAGE))


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in item.items() if key not in ("id", "call_id")} for item in items]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_events_of_any_pieces_tell_the_whole_response(cuts: list[int]) -> None:
    places = sorted(set(cuts))
    pieces = pieces_of([TEXT[a:b] for a, b in zip([0, *places], [*places, len(TEXT)], strict=True)])
    whole = ResponseObject(head(), ResponseStore())
    for piece in pieces:
        whole.piece(0, piece)
    response = json.loads(whole.body(USAGE))
    Response.model_validate(response)
    events = streamed(pieces, ResponseStore())
    assert without_ids(events[-1]["response"]["output"]) == without_ids(response["output"])
    assert [item["type"] for item in response["output"]] == [
        *("reasoning", "message", "function_call", "custom_tool_call")
    ]
    assert response["output"][3]["input"] == "a\nb"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    for item in done:
        deltas = [e["delta"] for e in events if e["type"].endswith(".delta") and e["item_id"] == item["id"]]
        text = item["content"][0]["text"] if "content" in item else item.get("arguments", item.get("input"))
        assert "".join(deltas) == text
    assert (events[-1]["type"], response["status"]) == ("response.completed", "completed")
    assert response["usage"]["total_tokens"] == 16


def test_a_response_that_is_cut_is_incomplete() -> None:
    events = streamed(pieces_of(["a</think>b"], "length"), ResponseStore())
    ended = events[-1]
    assert (ended["type"], ended["response"]["status"]) == ("response.incomplete", "incomplete")
    assert ended["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


def test_an_error_is_the_last_event() -> None:
    stream = TypedEvents(head(), ResponseStore())
    events = read(stream.begin() + stream.error(ErrorInfo(status=503, message="no", code="engine_stopped")))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "no"}


def stored(endpoint: Responses, text: str, items: str) -> str:
    whole = ResponseObject(head(items=items), endpoint.store)
    whole.piece(0, Piece(text, 1, "stop"))
    return str(json.loads(whole.body(USAGE))["id"])


def test_a_conversation_goes_on_from_a_stored_response() -> None:
    endpoint = Responses()
    first = {"type": "message", "role": "user", "content": "Hi"}
    name = stored(endpoint, "x</think>Yes.", json.dumps([first]))
    body = json.dumps({"model": "m", "previous_response_id": name, "input": "And?"}).encode()
    items = json.loads(endpoint.recalled(body, "t"))["input"]
    assert [item.get("role") or item["type"] for item in items] == ["user", "reasoning", "assistant", "user"]
    listed = json.dumps({"model": "m", "previous_response_id": name, "input": [first]}).encode()
    assert json.loads(endpoint.recalled(listed, "t"))["input"][-1] == first
    plain = json.dumps({"model": "m", "input": "Hi"}).encode()
    assert endpoint.recalled(plain, "t") == plain
    assert endpoint.recalled(b"{", "t") == b"{"
    with pytest.raises(RequestError, match="no such response") as caught:
        endpoint.recalled(body, "another")
    assert caught.value.param == "previous_response_id"


def test_what_is_not_to_be_stored_is_not() -> None:
    endpoint = Responses()
    whole = ResponseObject(head(items=None), endpoint.store)
    whole.piece(0, Piece("x", 1, "stop"))
    name = json.loads(whole.body(USAGE))["id"]
    assert endpoint.store.get("t", name) is None


def test_responses_are_kept_for_a_time_and_within_bounds() -> None:
    clock = Clock()
    store = ResponseStore(clock)
    store.keep("a", "1", b"{}", b"[]")
    assert store.get("a", "1") is not None
    assert store.get("b", "1") is None
    clock.now += TTL + 1
    assert store.get("a", "1") is None
    for number in range(300):
        store.keep("a", str(number), b"x" * 1000, b"[]")
    assert store.get("a", "43") is None
    assert store.get("a", "44") is not None
    store.keep("a", "large", b"x" * (17 << 20), b"[]")
    assert store.get("a", "large") is None
    for number in range(20):
        store.keep(f"tenant{number}", "1", b"x" * (15 << 20), b"[]")
    assert store.get("a", "299") is None
    assert store.get("tenant19", "1") is not None
    assert store.drop("tenant19", "1")
    assert not store.drop("tenant19", "1")
