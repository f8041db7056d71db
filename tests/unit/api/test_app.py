"""The whole application, called without a socket, with a client that plays the orchestrator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from faasmoe.api import generation
from faasmoe.api.app import create_app
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.api.parsed_request import Bounds
from faasmoe.errors import EngineBusy, EngineStopped
from faasmoe.fleet.fleet import Starts
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.config import About
from faasmoe.protocol.request import GenerationRequest, Piece, ScoredToken, TokenLogprob
from tests.operations import operations_of
from tests.reading import InlineReader
from tests.tenancies import PlayedTenancy


class Stream:
    """Pieces that are there, then an error, or nothing more for ever."""

    def __init__(self, pieces: Sequence[Piece], end: Exception | None) -> None:
        self._pieces = list(pieces)
        self._end = end
        self.closed = False
        self.final: asyncio.Future[Piece | None] = asyncio.get_running_loop().create_future()

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if self._pieces:
            piece = self._pieces.pop(0)
            if piece.last:
                self.final.set_result(piece)
            return piece
        if self._end:
            if not self.final.done():
                self.final.set_result(None)
            raise self._end
        return await asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        self.closed = True


class Orchestrator:
    """Answers each request with `pieces` and then `end`; or refuses all with `refusal`."""

    about = About("arch", 1, 2, 256, max_model_len=100)
    state = "ok"
    running = 1
    starts = Starts()

    def __init__(
        self, pieces: Sequence[Piece] = (), end: Exception | None = None, refusal: Exception | None = None
    ):
        self._pieces, self._end, self._refusal = pieces, end, refusal
        self.requests: list[GenerationRequest] = []
        self.streams: list[Stream] = []
        self.submitted = asyncio.Event()

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[Stream]:
        if self._refusal:
            raise self._refusal
        self.requests += requests
        self.streams = [Stream(self._pieces, StopAsyncIteration() if self._done else self._end) for _ in requests]
        self.submitted.set()
        return self.streams

    @property
    def _done(self) -> bool:
        return bool(self._pieces) and self._pieces[-1].last


ANSWER = [Piece("夜", 2), Piece(" 🎈", 5, "stop")]
BODY = {"model": "m", "prompt": "p"}


def app_of(orchestrator: Orchestrator, tenancy: PlayedTenancy | None = None) -> Any:
    tenancy = tenancy or PlayedTenancy()
    metrics = Metrics(orchestrator, lambda: PoolStatus(functions=[], memory_used=0), tenancy)
    return create_app("m", orchestrator, InlineReader(Bounds("m", 256, 100)), metrics, tenancy)


def post(
    orchestrator: Orchestrator,
    body: dict,
    path: str = "completions",
    tenancy: PlayedTenancy | None = None,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(orchestrator, tenancy), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = json.dumps(body)
            more = {"Content-Type": "application/json", **(headers or {})}
            return await client.post(f"/v1/{path}", content=content, headers=more)

    return asyncio.run(run())


def events(answer: httpx.Response) -> list:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_choices_come_prompt_by_prompt_with_seeds_of_their_own() -> None:
    orchestrator = Orchestrator(ANSWER)
    answer = post(orchestrator, {**BODY, "prompt": ["a", "bc"], "n": 2, "seed": 7}).json()
    assert [(c["index"], c["text"], c["finish_reason"]) for c in answer["choices"]] == [
        (i, "夜 🎈", "stop") for i in range(4)
    ]
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 20, "total_tokens": 23}
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


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status", "wait"),
    [
        (EngineBusy("too many"), 429, "1"),
        (EngineBusy("too many", retry_after=2.1), 429, "3"),
        (EngineBusy("too many", retry_after=0.0), 429, "1"),
        (EngineStopped("gone"), 503, "1"),
        (LookupError(), 500, None),
    ],
)
def test_refusals_say_when_to_come_again(stream: bool, error: Exception, status: int, wait: str | None) -> None:
    answer = post(Orchestrator(refusal=error), {**BODY, "stream": stream})
    assert (answer.status_code, answer.headers.get("retry-after")) == (status, wait)
    assert answer.json()["error"]["message"]


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


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"n": 128, "prompt": ["a", "b"]}, "n", "at most 128 answers"),
        ({"prompt": ["a"] * 129}, "prompt", "at most 128 answers"),
        ({"logit_bias": {"256": 1}}, "logit_bias", "ids are 0 to 255"),
        ({"logit_bias": {"\ud800": 1}}, "logit_bias", "logit_bias"),
        ({"prompt": "\ud800"}, "prompt", "prompt: half of a surrogate pair"),
        ({"stop": ["a", "\udfff"]}, "stop", "half of a surrogate pair"),
        ({"model": "\ud800"}, "model", "half of a surrogate pair"),
        ({"\ud800": 1}, None, "body"),
        ({"user": "u"}, "user", "user: this server does not honour this field; leave it out"),
        ({"suffix": "u"}, "suffix", "suffix: this server does not honour this; it takes only ''"),
        ({"temperature": float("nan")}, "temperature", "temperature: must be at most 2, not NaN"),
        ({"temperature": 2.5}, "temperature", "temperature: must be at most 2, not 2.5"),
        ({"max_tokens": 0}, "max_tokens", "at least 1, or 0 with echo"),
        ({"stop": ""}, "stop", "none empty"),
        ({"max_tokens": 2**70}, "max_tokens", "must be below"),
        ({"prompt": 5}, "prompt", "prompt: must be a string, a list of strings"),
        ({"prompt": [1, "a"]}, "prompt", "prompt.1: must be an integer, not a string"),
        ({"best_of": 4}, "best_of", "equal to n"),
        ({"nonsense": 4}, "nonsense", "does not know"),
    ],
)
def test_what_is_refused_is_named(body: dict, param: str | None, message: str) -> None:
    orchestrator = Orchestrator(ANSWER)
    answer = post(orchestrator, {**BODY, **body})
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert message in error["message"]
    assert not orchestrator.requests


def test_what_may_only_be_empty_is_refused_with_these_words() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "tools": [{"type": "function"}]}
    answer = post(Orchestrator(ANSWER), body, "chat/completions")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools")
    assert answer.json()["error"]["message"] == "tools: this server does not honour this; leave it out or empty"


def test_only_json_is_taken() -> None:
    """A page in a browser may send plain text to any address, without asking first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = post(Orchestrator(ANSWER), BODY, headers={"Content-Type": kind})
        what = f"is {kind!r}" if kind else "is missing"
        message = f"the header Content-Type {what}: send Content-Type: application/json"
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
    for kind in ("application/json; charset=utf-8", "application/problem+json", "Application/JSON"):
        assert post(Orchestrator(ANSWER), BODY, headers={"Content-Type": kind}).status_code == 200


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


def test_what_bodies_are_is_described() -> None:
    document = app_of_anything().openapi()
    for path, name in (("/v1/completions", "CompletionBody"), ("/v1/chat/completions", "ChatBody")):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{name}"}
        assert name in document["components"]["schemas"]


def test_generated_clients_keep_their_names() -> None:
    assert operations_of(app_of_anything()) == {
        ("get", "/metrics"): "page_metrics_get",
        ("get", "/v1/models"): "models_v1_models_get",
        ("get", "/v1/models/{name}"): "one_model_v1_models__name__get",
        ("get", "/v1/usage"): "own_usage_v1_usage_get",
        ("post", "/v1/completions"): "completions_v1_completions_post",
        ("post", "/v1/chat/completions"): "chat_v1_chat_completions_post",
    }


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_needs_the_internet(path: str) -> None:
    async def run() -> int:
        transport = httpx.ASGITransport(app_of_anything())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(run()) == 404


def app_of_anything() -> Any:
    return app_of(Orchestrator())


class Slow(Orchestrator):
    """Takes or refuses requests once its client has had `comments` of them."""

    def __init__(self, comments: int, pieces: Sequence[Piece] = (), refusal: Exception | None = None) -> None:
        super().__init__(pieces, refusal=refusal)
        self._comments = comments
        self._enough = asyncio.Event()

    def awaited(self, tenant: str) -> str:
        self._comments -= 1
        if not self._comments:
            self._enough.set()
        return "the model is being loaded"

    async def submit(self, requests: Sequence[GenerationRequest]) -> list[Stream]:
        await self._enough.wait()
        return await super().submit(requests)


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
