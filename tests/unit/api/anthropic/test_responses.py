from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.api.anthropic.responses import MessageStream, WholeMessage
from faasmoe.api.chat.reply import ReplyFormat
from faasmoe.api.interface import ErrorInfo, Head, Usage
from faasmoe.api.parsed_request import ParsedRequest
from faasmoe.protocol.request import Piece, SamplingParams

TEXT = 'Hm.</think>I look.\n<tool_call>\n{"name": "f", "arguments": {"x": [1, "é"]}}\n</tool_call>'
USAGE = Usage(9, 7, 4)


def head() -> Head[ReplyFormat]:
    form = ReplyFormat(thinking="think", opened=True, calls="hermes")
    parsed = ParsedRequest(prompts=((1,) * 9,), params=SamplingParams(), own=form)
    return Head(id="msg-1", created=0, model="m", prompt_tokens=9, parsed=parsed)


def events(stream: MessageStream, pieces: list[Piece]) -> list[dict[str, Any]]:
    sent = stream.begin() + b"".join(stream.piece(0, piece) for piece in pieces) + stream.end(USAGE)
    found = []
    for block in sent.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def pieces_of(texts: list[str], reason: str = "stop", stop: str | None = None) -> list[Piece]:
    last = len(texts) - 1
    return [
        Piece(text, i + 1, reason if i == last else None, stop=stop if i == last else None)
        for i, text in enumerate(texts)
    ]


def put_together(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that a client makes of events."""
    blocks: list[dict[str, Any]] = []
    for event in found:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]))
        elif event["type"] == "content_block_delta":
            delta, block = event["delta"], blocks[event["index"]]
            if delta["type"] == "input_json_delta":
                block["json"] = block.get("json", "") + delta["partial_json"]
            else:
                (key,) = set(delta) - {"type"}
                block[key] += delta[key]
        elif event["type"] == "content_block_stop" and "json" in blocks[event["index"]]:
            block = blocks[event["index"]]
            block["input"] = json.loads(block.pop("json"))
    return blocks


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_events_of_any_pieces_make_the_whole_message(cuts: list[int]) -> None:
    places = sorted(set(cuts))
    texts = [TEXT[a:b] for a, b in zip([0, *places], [*places, len(TEXT)], strict=True)]
    pieces = pieces_of(texts)
    whole = WholeMessage(head())
    for piece in pieces:
        whole.piece(0, piece)
    message = json.loads(whole.body(USAGE))
    Message.model_validate(message)
    found = events(MessageStream(head()), pieces)
    blocks = put_together(found)
    for block in (*message["content"], *blocks):
        block.pop("id", None)
    assert blocks == message["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text", "tool_use"]
    assert blocks[2]["input"] == {"x": [1, "é"]}
    assert [event["type"] for event in found if not event["type"].startswith("content")] == [
        *("message_start", "message_delta", "message_stop")
    ]
    assert (found[-2]["delta"]["stop_reason"], found[-2]["usage"]) == (message["stop_reason"], message["usage"])
    assert message["stop_reason"] == "tool_use"
    assert message["usage"]["input_tokens"] + message["usage"]["cache_read_input_tokens"] == 9


def test_reasons_of_the_end() -> None:
    for reason, stop, wanted in (
        ("stop", None, "end_turn"),
        ("length", None, "max_tokens"),
        ("stop", "x", "stop_sequence"),
    ):
        found = events(MessageStream(head()), pieces_of(["a</think>b"], reason, stop))
        assert found[-2]["delta"] == {"stop_reason": wanted, "stop_sequence": stop}


def test_an_empty_message_has_one_block() -> None:
    assert put_together(events(MessageStream(head()), pieces_of([""]))) == [{"type": "text", "text": ""}]


def test_an_error_is_the_last_event() -> None:
    told = MessageStream(head()).error(ErrorInfo(status=503, message="no", request_id="r"))
    event, data = told.decode().strip().split("\n")
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "no"},
        "request_id": "r",
    }


@pytest.mark.parametrize("arguments", ['{"a": "\\ud800"}', '{"a": NaN}', '{"a": ' + "[" * 996 + "]" * 996 + "}"])
def test_arguments_that_json_cannot_hold_are_a_text(arguments: str) -> None:
    whole = WholeMessage(head())
    whole.piece(0, Piece(f'</think><tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>', 1, "stop"))
    (block,) = msgspec.json.decode(whole.body(USAGE))["content"]
    assert block["input"] == {"arguments": arguments}
