"""The whole application, called without a socket, with a client that plays the orchestrator."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from faasmoe.errors import EngineBusy, EngineStopped
from tests.operations import operations_of
from tests.unit.api.apps import ANSWER, BODY, Orchestrator, app_of, post


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
        ({"user": 5}, "user", "user: must be a string, not 5"),
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
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "functions": [{"name": "f"}]}
    answer = post(Orchestrator(ANSWER), body, "chat/completions")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "functions")
    assert (
        answer.json()["error"]["message"] == "functions: this server does not honour this; leave it out or empty"
    )


def test_only_json_is_taken() -> None:
    """A page in a browser may send plain text to any address, without asking first."""
    page = {"Origin": "https://example.org"}
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = post(Orchestrator(ANSWER), BODY, headers={"Content-Type": kind, **page})
        what = f"is {kind!r}" if kind else "is missing"
        message = f"the header Content-Type {what}: send Content-Type: application/json"
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
    for kind in ("application/json; charset=utf-8", "application/problem+json", "Application/JSON"):
        assert post(Orchestrator(ANSWER), BODY, headers={"Content-Type": kind}).status_code == 200
    assert post(Orchestrator(ANSWER), BODY, headers={"Content-Type": ""}).status_code == 200


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
        ("get", "/"): "root__get",
        ("post", "/v1/responses"): "responses_v1_responses_post",
        ("get", "/v1/responses/{response_id}"): "get_responses_v1_responses__response_id__get",
        (
            "get",
            "/v1/responses/{response_id}/input_items",
        ): "items_of_responses_v1_responses__response_id__input_items_get",
        ("delete", "/v1/responses/{response_id}"): "delete_responses_v1_responses__response_id__delete",
        ("post", "/tokenize"): "tokenize_tokenize_post",
        ("post", "/detokenize"): "detokenize_detokenize_post",
        ("post", "/v1/embeddings"): "embeddings_v1_embeddings_post",
        ("post", "/v1/messages"): "messages_v1_messages_post",
        ("post", "/v1/messages/count_tokens"): "count_tokens_v1_messages_count_tokens_post",
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
