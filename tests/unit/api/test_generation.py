"""Responses, streamed and whole."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from faasmoe.api import generation
from faasmoe.errors import EngineBusy, EngineStopped
from faasmoe.protocol.request import Piece, ScoredToken, TokenLogprob
from tests.unit.api.apps import ANSWER, BODY, Orchestrator, Slow, app_of, events, post


def test_choices_come_prompt_by_prompt_with_seeds_of_their_own() -> None:
    orchestrator = Orchestrator(ANSWER)
    answer = post(orchestrator, {**BODY, "prompt": ["a", "bc"], "n": 2, "seed": 7}).json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (i, "夜 🎈", "stop") for i in range(4)
    ]
    assert answer["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 20,
        "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert [bytes(request.prompt) for request in orchestrator.requests] == [b"a", b"a", b"bc", b"bc"]
    seeds = [request.params.seed for request in orchestrator.requests]
    assert seeds == [7, seeds[1], 7, seeds[1]]
    assert seeds[1] != 7
    assert len({request.id for request in orchestrator.requests}) == 4


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_is_whole_events_of_whole_characters(include_usage: bool) -> None:
    body = {**BODY, "n": 2, "stream": True, "stream_options": {"include_usage": include_usage}}
    answer = post(Orchestrator(ANSWER), body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *chunks, done = events(answer)
    assert done == "[DONE]"
    usage = chunks.pop() if include_usage else None
    for index in range(2):
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert [(c["text"], c["finish_reason"]) for c in mine] == [("夜", None), (" 🎈", "stop")]
    if usage:
        assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 10)
    assert all(("usage" in chunk) == include_usage for chunk in chunks)


def test_max_tokens_is_cut_to_what_fits_beside_each_prompt() -> None:
    orchestrator = Orchestrator(ANSWER)  # whose context is 100 tokens
    assert post(orchestrator, {**BODY, "prompt": ["a" * 90, "bc"], "max_tokens": 5000}).status_code == 200
    assert [request.params.max_tokens for request in orchestrator.requests] == [10, 98]


def test_every_chunk_has_the_usage_so_far_if_asked() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    pieces = [Piece("a", 2, cached_tokens=1), Piece("b", 5, "stop", cached_tokens=1)]
    *chunks, last, _ = events(post(Orchestrator(pieces), {**BODY, "stream": True, "stream_options": options}))
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [2, 5]
    assert last["usage"] == chunks[-1]["usage"]
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}


def test_each_answer_of_a_chat_begins_with_its_role() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "n": 2, "stream": True}
    *chunks, _ = events(post(Orchestrator(ANSWER), body, "chat/completions"))
    for index in range(2):
        deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"][0]["index"] == index]
        assert deltas == [{"role": "assistant", "content": "夜"}, {"content": " 🎈"}]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (EngineStopped("it was killed"), "engine_stopped", "it was killed"),
        (LookupError("a tenant's words"), None, "internal error; the server's log has it"),
    ],
)
@pytest.mark.parametrize("n", [1, 3])
def test_a_stream_that_fails_ends_with_an_error(error: Exception, code: str | None, message: str, n: int) -> None:
    orchestrator = Orchestrator([Piece("a", 1)], error)
    answer = post(orchestrator, {**BODY, "stream": True, "n": n})
    *chunks, last = events(answer)
    assert (last["error"]["type"], last["error"]["code"]) == ("server_error", code)
    assert last["error"]["message"] == message
    assert len(chunks) <= n
    assert all(stream.closed for stream in orchestrator.streams)


def test_whole_answers_fail_with_the_status_of_the_error() -> None:
    assert post(Orchestrator([Piece("a", 1)], EngineStopped("gone")), BODY).status_code == 503


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_generation(stream: bool) -> None:
    orchestrator = Orchestrator([Piece("a", 1)])

    async def run() -> None:
        body = json.dumps({**BODY, "n": 2, "stream": stream}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict:
            if messages:
                return messages.pop(0)
            await orchestrator.submitted.wait()
            return {"type": "http.disconnect"}

        async def send(_: dict) -> None:
            pass

        headers = [(b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": headers,
            "query_string": b"",
        }
        await asyncio.wait_for(app_of(orchestrator)(scope, receive, send), 30)

    asyncio.run(run())
    assert [stream.closed for stream in orchestrator.streams] == [True, True]


@pytest.mark.parametrize("stream", [True, False])
def test_many_log_probabilities_are_written_in_turns_with_others(stream: bool) -> None:
    scores = tuple(TokenLogprob(ScoredToken(1, b"a", -1.0), (ScoredToken(2, b"b", -2.0),), i) for i in range(1000))
    last = Piece("a" * 1000, 1000, "stop", logprobs=scores)
    answer = post(Orchestrator([last]), {**BODY, "logprobs": 1, "stream": stream})
    chunks = events(answer)[:-1] if stream else [answer.json()]
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [offset for choice in choices for offset in choice["logprobs"]["text_offset"]] == list(range(1000))
    assert "".join(choice["text"] for choice in choices) == "a" * 1000
    assert [choice["finish_reason"] for choice in choices] == [*[None] * (len(choices) - 1), "stop"]
    assert (len(choices) > 5) == stream


def commented(answer: httpx.Response) -> tuple[list[str], list]:
    """Its comments, and what is left without them."""
    parts = [part for part in answer.text.split("\n\n") if part]
    comments = [part for part in parts if part.startswith(":")]
    rest = [part.removeprefix("data: ") for part in parts if part not in comments]
    return comments, [part if part == "[DONE]" else json.loads(part) for part in rest]


def test_a_stream_that_has_to_wait_has_comments_before_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "INTERVAL", 0.01)
    answer = post(Slow(2, ANSWER), {**BODY, "stream": True})
    comments, (*chunks, done) = commented(answer)
    assert comments[:2] == [": waiting, the model is being loaded"] * 2
    assert ["".join(c["text"] for chunk in chunks for c in chunk["choices"]), done] == ["夜 🎈", "[DONE]"]


@pytest.mark.parametrize(
    ("error", "code"), [(EngineStopped("gone"), "engine_stopped"), (EngineBusy("full"), "engine_busy")]
)
def test_what_is_refused_after_a_comment_is_an_event(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    monkeypatch.setattr(generation, "INTERVAL", 0.01)
    answer = post(Slow(1, refusal=error), {**BODY, "stream": True})
    assert answer.status_code == 200
    comments, (last,) = commented(answer)
    assert comments[0] == ": waiting, the model is being loaded"
    assert (last["error"]["code"], last["error"]["message"]) == (code, str(error))


def test_a_client_that_leaves_before_its_stream_has_started_is_noticed() -> None:
    orchestrator = Slow(1)  # which takes nothing, as no comment is sent

    async def run() -> None:
        body = json.dumps({**BODY, "stream": True}).encode()
        messages = [
            {"type": "http.request", "body": body, "more_body": False},
            {"type": "http.disconnect"},
        ]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
        }

        async def receive() -> dict:
            return messages.pop(0)

        async def send(_: dict) -> None:
            pass

        await asyncio.wait_for(app_of(orchestrator)(scope, receive, send), 30)

    asyncio.run(run())
    assert not orchestrator.requests


def test_pieces_that_come_to_no_event_send_nothing() -> None:
    """A part of no bytes would count as news, so that a long call that is held back kept no connection alive."""
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    body["tools"] = [{"type": "function", "function": function}]
    texts = ["<tool_call>", '{"na', 'me": "f"', ', "arguments": {', "}}</tool_call>"]
    pieces = [Piece(text, i + 1, "stop" if i == 4 else None) for i, text in enumerate(texts)]
    sent: list[bytes] = []
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> dict:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: dict) -> None:
        if message["type"] == "http.response.start":
            sent.append(b"start")
        elif message.get("more_body"):
            sent.append(message["body"])

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-type", b"application/json")],
        "query_string": b"",
    }

    async def run() -> None:
        await asyncio.wait_for(app_of(Orchestrator(pieces))(scope, receive, send), 30)

    asyncio.run(run())
    assert len(sent) > 3
    assert all(sent)
