"""Requests of every shape, made from the server's own schema: none may find a defect."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.transport import DEFAULT_MAX_STREAM_EVENTS

from tests.fuzz.seeds import bodies
from tests.fuzz.served import Findings, live_beside, plausible
from tests.fuzz.targets import CORPUS
from tests.integration.servers import MODEL, Server

EXAMPLES = 50  # a route and a mode of generation


@pytest.fixture(scope="module")
def schema(server: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/v1/openapi.json")


def served_soon(body: Any) -> Any:
    """A body as it came, but for the model that is there and no more tokens than can be waited for."""
    if isinstance(body, dict) and "model" in body:
        body = {**body, "model": MODEL}
        for name in ("max_tokens", "max_completion_tokens"):
            if isinstance(body.get(name), int) and body[name] > 3:
                body[name] = 3
        if "messages" in body and body.get("max_completion_tokens") is None and body.get("max_tokens") is None:
            body["max_tokens"] = 3
        if isinstance(body.get("n"), int) and body["n"] > 3:
            body["n"] = 3
    return body


VALID, INVALID = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode", "reached"),
    [
        ("POST", "/v1/completions", VALID, {200, 400}),
        ("POST", "/v1/completions", INVALID, {400}),
        ("POST", "/v1/chat/completions", VALID, {200, 400}),
        ("POST", "/v1/chat/completions", INVALID, {400}),
        ("GET", "/v1/models/{name}", VALID, {404}),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module inside strategies"  # schemathesis does, in strategies of its own
)
def test_nothing_that_is_sent_finds_a_defect(
    server: Server,
    schema: schemathesis.BaseSchema,
    method: str,
    path: str,
    mode: schemathesis.GenerationMode,
    reached: set[int],
) -> None:
    statuses: Counter[int] = Counter()

    @settings(
        derandomize=True,
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        case.body = served_soon(case.body)
        answer = case.call()
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, (answer.status_code, answer.text)
        if answer.status_code >= 400:
            assert answer.json()["error"]["message"]
        elif "text/event-stream" in answer.headers.get("content-type", [""])[0]:
            cut = answer.text.count("data: ") >= DEFAULT_MAX_STREAM_EVENTS  # where schemathesis reads no further
            assert cut or answer.text.endswith("data: [DONE]\n\n"), answer.text[-300:]

    send()
    assert reached <= set(statuses), statuses
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_what_fuzzers_have_kept_is_answered_and_disturbs_nobody(server: Server) -> None:
    found, over = Findings(), threading.Event()
    neighbour = threading.Thread(target=live_beside, args=(server.url, "none", over, found))
    neighbour.start()
    kept = [*bodies(), *(file.read_bytes() for file in sorted((CORPUS / "bodies").iterdir()))]
    try:
        with httpx.Client(headers={"Content-Type": "application/json"}, timeout=60) as client:
            for content in map(plausible, kept):
                path = "/v1/chat/completions" if b"messages" in content else "/v1/completions"
                answer = client.post(server.url + path, content=content)
                assert answer.status_code in (200, 400, 404), (content, answer.text)
    finally:
        over.set()
        neighbour.join()
    assert found.disturbed == []
    assert found.answered
