"""What the options of the HTTP API change, by requests to the whole application."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from faasmoe.api.http.body_limit import MAX_BODY
from faasmoe.api.http_options import HttpOptions
from faasmoe.errors import OptionError
from tests.unit.api.apps import ANSWER, BODY, Orchestrator, app_of

JSON = {"Content-Type": "application/json"}


def ask(
    method: str,
    path: str,
    body: Any = None,
    options: HttpOptions | None = None,
    orchestrator: Orchestrator | None = None,
    **headers: str,
) -> httpx.Response:
    async def run() -> httpx.Response:
        app = app_of(orchestrator or Orchestrator(ANSWER), options=options)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, content=content, headers={**JSON, **named})

    return asyncio.run(run())


def test_a_model_has_all_its_names() -> None:
    options = HttpOptions(names=("first", "second"))
    listed = ask("GET", "/v1/models", options=options).json()["data"]
    assert [(card["id"], card["root"]) for card in listed] == [("first", "first"), ("second", "first")]
    assert ask("GET", "/v1/models/second", options=options).json()["id"] == "second"
    for name, status in (("first", 200), ("second", 200), ("m", 404)):
        answer = ask("POST", "/v1/completions", {**BODY, "model": name}, options)
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["model"] == "first"


def test_an_unknown_field_is_refused_with_the_nearest_that_is_known() -> None:
    error = ask("POST", "/v1/completions", {**BODY, "max_token": 3}).json()["error"]
    assert error["param"] == "max_token"
    assert error["message"].endswith("the nearest that it knows is max_tokens")


def test_unknown_fields_are_ignored_and_named_if_the_operator_wants_that() -> None:
    options = HttpOptions(unknown_fields="ignore")
    answer = ask("POST", "/v1/completions", {**BODY, "odd": 1, "a\nb": 2}, options)
    assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "odd, a?b")
    streamed = ask("POST", "/v1/completions", {**BODY, "odd": 1, "stream": True}, options)
    assert streamed.headers["x-ignored-fields"] == "odd"
    assert "x-ignored-fields" not in ask("POST", "/v1/completions", BODY, options).headers
    wrong = ask("POST", "/v1/completions", {**BODY, "odd": 1, "n": 0}, options)
    assert wrong.status_code == 400


def test_web_pages_of_an_origin_may_call_the_api() -> None:
    options = HttpOptions(cors_origins=("https://example.org",))
    preflight = {
        "Origin": "https://example.org",
        "Access_Control_Request_Method": "POST",
        "Access_Control_Request_Headers": "authorization,content-type",
    }
    answer = ask("OPTIONS", "/v1/chat/completions", options=options, **preflight)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    answer = ask("POST", "/v1/completions", BODY, options, Origin="https://example.org")
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://example.org")
    other = ask("OPTIONS", "/v1/models", options=options, **{**preflight, "Origin": "https://other.org"})
    assert "access-control-allow-origin" not in other.headers
    assert "access-control-allow-origin" not in ask("GET", "/v1/models", Origin="https://example.org").headers


def test_a_slash_at_the_end_changes_nothing() -> None:
    assert ask("GET", "/v1/models/").json()["data"][0]["id"] == "m"
    assert ask("POST", "/v1/completions/", BODY).status_code == 200
    assert ask("GET", "/").status_code == 200


def test_a_proxy_may_serve_the_api_below_a_path() -> None:
    options = HttpOptions(root_path="/llm")
    assert ask("GET", "/llm/v1/models", options=options).status_code == 200
    assert ask("GET", "/v1/models", options=options).status_code == 200
    assert ask("GET", "/llmv1/models", options=options).status_code == 404
    assert ask("GET", "/llm/v1/openapi.json", options=options).json()["servers"] == [{"url": "/llm"}]


def test_bodies_may_be_packed() -> None:
    packed = gzip.compress(json.dumps(BODY).encode())
    assert ask("POST", "/v1/completions", packed, Content_Encoding="gzip").status_code == 200
    assert ask("POST", "/v1/completions", packed, Content_Encoding="br").status_code == 415
    assert ask("POST", "/v1/completions", packed[:-9], Content_Encoding="gzip").status_code == 400
    assert ask("POST", "/v1/completions", b"x", Content_Encoding="gzip").status_code == 400
    large = gzip.compress(b" " * (MAX_BODY + 1))
    assert ask("POST", "/v1/completions", large, Content_Encoding="gzip").status_code == 413


def test_methods_that_a_route_has_not_are_told() -> None:
    answer = ask("PUT", "/v1/completions", BODY)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_a_checkpoint_s_defaults_hold_where_a_body_states_none() -> None:
    orchestrator = Orchestrator(ANSWER)
    defaults = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    orchestrator.about = replace(orchestrator.about, sampling=defaults)
    assert (
        ask("GET", "/v1/models", orchestrator=orchestrator).json()["data"][0]["default_sampling_params"]
        == defaults
    )
    ask("POST", "/v1/completions", {**BODY, "top_k": 3, "temperature": None}, orchestrator=orchestrator)
    params = orchestrator.requests[-1].params
    assert (params.temperature, params.top_k, params.top_p) == (0.6, 3, 0.95)


def test_tokens_of_a_text_and_back() -> None:
    answer = ask("POST", "/tokenize", {"model": "m", "prompt": "ab", "return_token_strs": True}).json()
    assert answer == {"count": 2, "max_model_len": 100, "tokens": [97, 98], "token_strs": ["a", "b"]}
    chat = {"model": "m", "messages": [{"role": "user", "content": "abc"}]}
    assert ask("POST", "/tokenize", chat).json()["count"] == 3
    assert ask("POST", "/detokenize", {"model": "m", "tokens": [97, 98]}).json() == {"prompt": "ab"}
    assert ask("POST", "/detokenize", {"model": "m", "tokens": [999]}).json()["error"]["param"] == "tokens"
    assert ask("POST", "/tokenize", {"model": "m"}).json()["error"]["param"] == "prompt"
    assert ask("POST", "/v1/embeddings", {"model": "m", "input": "x"}).json()["error"]["message"] == (
        "m generates text and makes no embeddings"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("",)}, "--served-model-name"),
        ({"names": ("x" * 2000,)}, "--served-model-name"),
        ({"names": tuple(map(str, range(99)))}, "99 names"),
        ({"cors_origins": ("example.org",)}, "--cors-origin example.org"),
        ({"root_path": "llm"}, "--root-path llm"),
        ({"root_path": "/llm/"}, "--root-path /llm/"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        HttpOptions(**options)
