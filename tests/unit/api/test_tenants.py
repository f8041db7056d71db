"""The application with tenants: who may ask, what limits say, and what is recorded."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import httpx
import pytest

from faasmoe.api.metering import request_meter
from faasmoe.api.openai.api import duration
from faasmoe.errors import EngineBusy, EngineStopped
from faasmoe.protocol.request import Piece, ResourceUsage
from faasmoe.tenancy.budget import Budget
from faasmoe.tenancy.ledger.ledger import Record
from faasmoe.tenancy.proxies import TrustedProxies
from faasmoe.tenancy.tenants import Tenant
from tests.tenancies import PlayedTenancy, bearer
from tests.unit.api.apps import ANSWER, BODY, Orchestrator, app_of, events, post

ACME = Tenant("acme", weight=3.0)
USED = ResourceUsage(2.5, 0.5, 0.25, 1.0, 0.125)
LAST = Piece("!", 7, "length", cached_tokens=1, used=USED)
ENDED = Piece("", 3, "cancelled", cached_tokens=1, used=USED)


def get(tenancy: PlayedTenancy, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(Orchestrator(), tenancy), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(run())


async def turns() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(200):
        await asyncio.sleep(0)


def record_of(tenancy: PlayedTenancy) -> Record:
    (record,) = tenancy.records
    assert isinstance(record, Record)
    return record


def test_a_request_goes_to_the_orchestrator_as_its_tenants() -> None:
    orchestrator = Orchestrator([LAST])
    body = {**BODY, "service_tier": "priority"}
    answer = post(orchestrator, body, tenancy=PlayedTenancy(ACME), headers=bearer("acme"))
    assert (answer.status_code, answer.json()["service_tier"]) == (200, "priority")
    (request,) = orchestrator.requests
    assert (request.tenant, request.weight, request.priority) == ("acme", 3.0, 1)


@pytest.mark.parametrize(
    ("tier", "priority", "told"),
    [
        (None, 0, None),
        ("auto", 0, "default"),
        ("default", 0, "default"),
        ("flex", -1, "flex"),
        ("priority", 1, "priority"),
    ],
)
def test_classes_of_priority(tier: str | None, priority: int, told: str | None) -> None:
    orchestrator = Orchestrator(ANSWER)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "service_tier": tier, "stream": True}
    chunk, *_ = events(post(orchestrator, body, "chat/completions"))
    assert chunk.get("service_tier") == told
    assert orchestrator.requests[0].priority == priority


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "fm-acme-secret"},
        {"Authorization": "Basic fm-acme-secret"},
        {"Authorization": "Bearer fm-acme-Secret"},
        {"Authorization": "Bearer fm-acme-secret fm-acme-secret"},
        {"X-Api-Key": "fm-acme-secret"},
        bearer("admin"),
        bearer("other"),
    ],
)
def test_who_has_no_key_is_told_so_before_the_body_is_read(headers: dict[str, str]) -> None:
    orchestrator, tenancy = Orchestrator(ANSWER), PlayedTenancy(ACME)
    for answer in (
        post(orchestrator, {"nonsense": 1}, tenancy=tenancy, headers=headers),
        get(tenancy, "/v1/models", headers),
        get(tenancy, "/v1/usage", headers),
        get(tenancy, "/v1/nowhere", headers),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (
            401,
            "invalid_api_key",
            "invalid_request_error",
        )
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "secret" not in answer.text.lower()
    assert not orchestrator.requests
    assert not tenancy.records


def test_schemes_are_not_case_sensitive() -> None:
    assert get(PlayedTenancy(ACME), "/v1/models", {"authorization": "bearer  fm-acme-secret"}).status_code == 200


def test_metrics_show_all_tenants_and_are_for_admins() -> None:
    tenancy = PlayedTenancy(ACME)
    assert get(tenancy, "/metrics").status_code == 401
    assert get(tenancy, "/metrics", bearer("acme")).status_code == 401


def test_guessing_keys_is_slowed() -> None:
    tenancy = PlayedTenancy(ACME)
    answers = [get(tenancy, "/v1/models", {"Authorization": f"Bearer guess-{i}"}) for i in range(12)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 2
    assert 50 < int(answers[-1].headers["retry-after"]) <= 60
    assert get(tenancy, "/v1/models", bearer("acme")).status_code == 200


def test_proxies_that_are_trusted_say_who_guesses() -> None:
    tenancy = PlayedTenancy(ACME)
    tenancy.authentication.proxies = TrustedProxies.parse("127.0.0.0/8")
    guess = {"Authorization": "Bearer guess", "X-Forwarded-For": "1.2.3.4, 9.9.9.9"}
    answers = [get(tenancy, "/v1/models", guess) for _ in range(11)]
    assert answers[-1].status_code == 429
    other = {**guess, "X-Forwarded-For": "9.9.9.9, 8.8.8.8"}
    assert get(tenancy, "/v1/models", other).status_code == 401
    tenancy.authentication.proxies = TrustedProxies()
    assert get(tenancy, "/v1/models", guess).status_code == 401  # the proxy itself has not guessed yet


def test_pages_whose_names_point_here_are_refused_by_an_open_server() -> None:
    tenancy = PlayedTenancy(local=True)
    for path in ("/v1/models", "/metrics", "/health", "/nowhere"):
        answer = get(tenancy, path, {"Host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_host")
    assert get(tenancy, "/v1/models", {"Host": "localhost:8000"}).status_code == 200
    assert get(PlayedTenancy(ACME, local=True), "/v1/models", bearer("acme")).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_limits_are_told_and_kept(stream: bool) -> None:
    tenancy = PlayedTenancy(Tenant("acme", rpm=2, tpm=1000))
    body = {**BODY, "stream": stream}
    orchestrator = Orchestrator([LAST])
    first, second, third = (post(orchestrator, body, tenancy=tenancy, headers=bearer("acme")) for _ in range(3))
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    found = {name: value for name, value in first.headers.items() if name.startswith("x-ratelimit")}
    assert found["x-ratelimit-limit-requests"] == "2"
    assert found["x-ratelimit-remaining-requests"] == "1"
    assert found["x-ratelimit-reset-requests"] in ("1m0s", "60s")
    assert found["x-ratelimit-limit-tokens"] == "1000"
    assert found["x-ratelimit-remaining-tokens"] == ("983" if stream else "992")  # 16 are set aside while it runs
    error = third.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert third.headers["retry-after"] == "60"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in third.headers
    assert len(tenancy.records) == 2  # what was refused has used nothing


def test_what_can_never_fit_is_not_to_be_tried_again() -> None:
    body = {**BODY, "max_tokens": 60, "n": 2}
    tenancy = PlayedTenancy(Tenant("acme", tpm=100))
    answer = post(Orchestrator([LAST]), body, tenancy=tenancy, headers=bearer("acme"))
    assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "false")
    assert "retry-after" not in answer.headers
    assert "asks for 121" in answer.json()["error"]["message"]


def test_a_budget_that_is_used_up() -> None:
    tenancy = PlayedTenancy(Tenant("acme", budget=Budget(Decimal(5))))
    answer = post(Orchestrator([LAST]), BODY, tenancy=tenancy, headers=bearer("acme"))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (429, "insufficient_quota", "insufficient_quota")
    assert 0 < int(answer.headers["retry-after"]) <= 31 * 86400
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("error", [EngineBusy("full"), EngineStopped("gone")])
def test_what_the_orchestrator_does_not_take_counts_for_nothing(error: Exception) -> None:
    tenancy = PlayedTenancy(Tenant("acme", rpm=1, tpm=20, concurrency=1))
    for _ in range(3):
        answer = post(Orchestrator(refusal=error), BODY, tenancy=tenancy, headers=bearer("acme"))
        assert answer.json()["error"]["code"] in ("engine_busy", "engine_stopped")
    assert post(Orchestrator([LAST]), BODY, tenancy=tenancy, headers=bearer("acme")).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_has_one_record(stream: bool) -> None:
    tenancy = PlayedTenancy(ACME)
    body = {**BODY, "prompt": ["abc", "de"], "n": 2, "stream": stream}
    answer = post(Orchestrator([Piece("x", 3), LAST]), body, tenancy=tenancy, headers=bearer("acme"))
    record = record_of(tenancy)
    assert record.id == (events(answer)[0] if stream else answer.json())["id"]
    assert (record.tenant, record.key, record.model, record.outcome) == ("acme", "fm-acme", "m", "length")
    assert (record.prompt_tokens, record.cached_tokens, record.completion_tokens) == (5, 2, 28)
    assert (record.invocations, record.gb_seconds, record.orchestrator_cpu_seconds) == (10, 1, 0.5)
    assert 0 <= (record.first_token_seconds or 0) <= record.seconds


def test_without_tenants_there_are_records_too() -> None:
    tenancy = PlayedTenancy()
    post(Orchestrator([LAST]), BODY, tenancy=tenancy)
    assert (record_of(tenancy).tenant, record_of(tenancy).key) == ("", "")


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_fails_is_recorded_as_such(stream: bool) -> None:
    tenancy = PlayedTenancy(ACME)
    orchestrator = Orchestrator([Piece("x", 3)], EngineStopped("killed"))
    post(orchestrator, {**BODY, "stream": stream}, tenancy=tenancy, headers=bearer("acme"))
    record = record_of(tenancy)
    assert (record.outcome, record.completion_tokens) == ("error", 3)
    tenancy.limits.arrive(Tenant("acme", concurrency=1)).leave()  # nothing runs any more


@pytest.mark.parametrize("final", [ENDED, None])
@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_pays_for_what_was_used_until_then(stream: bool, final: Piece | None) -> None:
    tenancy, orchestrator = PlayedTenancy(ACME), Orchestrator([Piece("x", 2)])

    async def run() -> None:
        body = json.dumps({**BODY, "stream": stream}).encode()
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer fm-acme-secret")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/completions",
            "headers": headers,
            "query_string": b"",
        }

        async def receive() -> dict:
            if messages:
                return messages.pop(0)
            await orchestrator.submitted.wait()
            await turns()
            return {"type": "http.disconnect"}

        async def send(_: dict) -> None:
            pass

        app = app_of(orchestrator, tenancy)
        await asyncio.wait_for(app(scope, receive, send), 30)
        assert not tenancy.records  # it is not known yet
        settled = asyncio.create_task(app.state.meters.settled())
        await turns()
        assert not settled.done()
        orchestrator.streams[0].final.set_result(final)
        await settled

    asyncio.run(run())
    record = record_of(tenancy)
    wanted = ("cancelled", 1, 3, 2.5) if final else ("error", 1, 2, 0)
    assert (record.outcome, record.prompt_tokens, record.completion_tokens, record.invocations) == wanted


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_waits_for_its_record(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_meter, "DURABLE_SECONDS", 300)
    tenancy = PlayedTenancy(ACME, durable=None)
    body = {**BODY, "stream": stream}

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app_of(Orchestrator([LAST]), tenancy))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = asyncio.create_task(client.post("/v1/completions", json=body, headers=bearer("acme")))
            await turns()
            assert tenancy.held
            assert not asked.done()
            tenancy.held[0].set_result(True)
            return await asyncio.wait_for(asked, 30)

    assert asyncio.run(run()).status_code == 200
    assert len(tenancy.records) == 1


@pytest.mark.parametrize("durable", [None, False])
def test_a_database_that_is_down_keeps_no_answer_back(
    durable: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_meter, "DURABLE_SECONDS", 0.01)
    tenancy = PlayedTenancy(ACME, durable=durable)
    assert post(Orchestrator([LAST]), BODY, tenancy=tenancy, headers=bearer("acme")).status_code == 200
    assert len(tenancy.records) == 1


def test_durations_are_written_as_openai_does() -> None:
    assert [duration(seconds) for seconds in (0, 0.0201, 0.9999, 1, 59.2, 60, 61.5, 360)] == [
        "0ms", "21ms", "1000ms", "1s", "1m0s", "1m0s", "1m2s", "6m0s",
    ]  # fmt: skip
