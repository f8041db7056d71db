"""Tenants on a real server: keys, limits, records, admins, and nothing of one for another."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from faasmoe.tenancy.database.database import Database
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key, revoke_key
from faasmoe.tenancy.tenants import Tenant, add_tenant, list_tenants, remove_tenant, set_tenant
from tests.integration.servers import Server, serve
from tests.metrics import NO_PROMTOOL, OPENMETRICS, families, promtool
from tests.waiting import wait_until

MODEL = "faasmoe-demo"
SECRET = "xylophones of Samarkand"


@dataclass(frozen=True)
class Place:
    server: Server
    admin: str  # where the admin API is
    database: Database
    keys: dict[str, str]
    log: Path

    def client(self, name: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.server.url}/v1", api_key=self.keys[name], max_retries=0)

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"}


def free_port(*hosts: str) -> str:
    """A port on which nobody listens at these addresses."""
    for _ in range(100):
        with ExitStack() as stack:
            port = 0
            try:
                for host in hosts:
                    listener = stack.enter_context(socket.socket())
                    listener.bind((host, port))
                    port = listener.getsockname()[1]
            except OSError:
                continue
            return str(port)
    raise AssertionError("no port is free")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tenants")
    url = f"sqlite:///{folder}/tenants.db"
    with open_database(url) as database:
        for tenant in (Tenant("acme", weight=3), Tenant("bolt")):
            add_tenant(database, tenant)
        keys = {name: create_key(database, name)[0] for name in ("acme", "bolt")}
        keys["admin"] = create_key(database, None)[0]
        port = free_port("127.0.0.1", "127.0.0.2")  # one for both: addresses tell them apart
        there = ("--port", port, "--admin-host", "127.0.0.2", "--admin-port", port)
        with (
            (folder / "log").open("w") as log,
            serve("--database", url, *there, "--prices", "aws-lambda", stderr=log) as server,
        ):
            found = re.search(r"the admin API is at (\S+)", server.greeting)
            assert found
            assert "2 tenants may use it" in server.greeting
            yield Place(server, found[1], database, keys, folder / "log")


def ask(place: Place, name: str, prompt: str = "It was", **more: object) -> httpx.Response:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 4, "temperature": 0, **more}
    return httpx.post(f"{place.server.url}/v1/completions", json=body, headers=place.headers(name), timeout=60)


def used(place: Place, name: str, **query: str) -> dict:
    answer = httpx.get(f"{place.server.url}/v1/usage", params=query, headers=place.headers(name), timeout=30)
    assert answer.status_code == 200
    return answer.json()


def test_openais_client_with_a_key_and_without(place: Place) -> None:
    with place.client("acme") as client:
        assert client.completions.create(model=MODEL, prompt="It was", max_tokens=3).usage.completion_tokens == 3  # type: ignore[union-attr]
        wrong = client.with_options(api_key="fm-0000000000-nonsense")
        with pytest.raises(openai.AuthenticationError) as caught:
            wrong.models.list()
    assert caught.value.code == "invalid_api_key"


def test_what_answers_say_is_what_is_recorded_and_charged(place: Place) -> None:
    before = used(place, "bolt")["total"]
    answers = [ask(place, "bolt", f"A {SECRET} no. {i}").json() for i in range(3)]
    answers.append(ask(place, "bolt", n=3).json())
    after = used(place, "bolt")
    for field in ("prompt_tokens", "completion_tokens"):
        assert after["total"][field] - before[field] == sum(answer["usage"][field] for answer in answers)
    assert after["total"]["requests"] - before["requests"] == 4
    assert after["total"]["invocations"] > before["invocations"]
    assert float(after["total"]["cost"]) > float(before["cost"])
    assert after["currency"] == "USD"
    (line,) = [each for each in used(place, "bolt", by="key")["lines"] if each["key"]]
    assert place.keys["bolt"].startswith(line["key"])
    assert {each["tenant"] for each in after["lines"]} == {"bolt"}  # and nobody else
    assert httpx.get(
        f"{place.server.url}/v1/usage", params={"tenant": "acme", "by": "'; --"}, headers=place.headers("bolt")
    ).status_code == 400  # fmt: skip


def test_limits_follow_while_the_server_runs(place: Place) -> None:
    set_tenant(place.database, "bolt", {"rpm": 1})
    assert wait_until(lambda: ask(place, "bolt").status_code == 429, 10)
    refused = ask(place, "bolt")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-ratelimit-limit-requests"] == "1"
    with place.client("bolt") as client, pytest.raises(openai.RateLimitError):
        client.completions.create(model=MODEL, prompt="x")
    assert ask(place, "acme").status_code == 200
    set_tenant(place.database, "bolt", {"rpm": None})
    assert wait_until(lambda: ask(place, "bolt").status_code == 200, 10)


def test_a_burst_gets_no_more_than_there_is(place: Place) -> None:
    """Twelve chats at once, without a length of their own."""
    add_tenant(place.database, Tenant("burst", tpm=300))
    place.keys["burst"] = create_key(place.database, "burst")[0]
    headers = place.headers("burst")
    assert wait_until(lambda: httpx.get(f"{place.server.url}/v1/models", headers=headers).status_code == 200, 10)

    def chat(_: int) -> httpx.Response:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Tell me of the sea."}],
            "ignore_eos": True,
        }
        return httpx.post(f"{place.server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(chat, range(12)))
    assert {answer.status_code for answer in answers} == {200, 429}
    total = used(place, "burst")["total"]
    tokens = total["prompt_tokens"] + total["completion_tokens"]
    assert tokens == sum(each.json()["usage"]["total_tokens"] for each in answers if each.status_code == 200)
    assert 200 < tokens <= 300
    status, body = refused_early(place, headers, 4_000_000)
    assert (status, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")


def refused_early(place: Place, headers: dict[str, str], size: int) -> tuple[int, bytes]:
    """Status and body of the answer to a request whose body is not sent: who waited for it would not answer."""
    with closing(http.client.HTTPConnection(place.server.url.removeprefix("http://"), timeout=10)) as connection:
        connection.putrequest("POST", "/v1/completions")
        for name, value in {**headers, "Content-Length": str(size)}.items():
            connection.putheader(name, value)
        connection.endheaders()
        with closing(connection.getresponse()) as answer:
            return answer.status, answer.read()


def test_a_revoked_key_stops_working(place: Place) -> None:
    text, key = create_key(place.database, "acme")
    place.keys["brief"] = text
    assert wait_until(lambda: ask(place, "brief").status_code == 200, 10)
    revoke_key(place.database, key.id)
    assert wait_until(lambda: ask(place, "brief").status_code == 401, 10)


def test_admins_and_tenants_have_nothing_in_common(place: Place) -> None:
    routes = ["/admin/tenants", "/admin/tenants/acme", "/admin/tenants/acme/keys", "/admin/usage", "/metrics"]
    for route in routes:
        assert httpx.get(place.admin + route, headers=place.headers("admin")).status_code == 200, route
        assert httpx.get(place.admin + route, headers=place.headers("acme")).status_code == 401, route
        assert httpx.get(place.admin + route).status_code == 401, route
        if route != "/metrics":
            assert httpx.get(place.server.url + route, headers=place.headers("admin")).status_code == 404, route
    assert httpx.get(f"{place.server.url}/v1/models", headers=place.headers("admin")).status_code == 401
    assert httpx.get(f"{place.admin}/v1/models", headers=place.headers("admin")).status_code == 404
    assert httpx.get(f"{place.server.url}/metrics", headers=place.headers("acme")).status_code == 401
    spoofed = {
        **place.headers("acme"),
        "Host": place.admin.removeprefix("http://"),
        "X-Forwarded-For": "127.0.0.1",
    }
    assert httpx.get(f"{place.server.url}/admin/tenants", headers=spoofed).status_code == 404


def test_the_admin_api(place: Place) -> None:
    with httpx.Client(base_url=place.admin, headers=place.headers("admin"), timeout=30) as admin:
        made = admin.post("/admin/tenants", json={"name": "new", "weight": 2, "budget": "5USD"})
        assert (made.status_code, made.json()["budget"]) == (201, "5USD")
        assert admin.post("/admin/tenants", json={"name": "new"}).status_code == 409
        assert admin.patch("/admin/tenants/new", json={"rpm": 3, "budget": None}).json()["budget"] is None
        key = admin.post("/admin/tenants/new/keys", json={"expires_in": 1}).json()
        place.keys["new"] = key["key"]
        assert wait_until(lambda: ask(place, "new").status_code == 200, 10)
        assert "key" not in admin.get("/admin/tenants/new/keys").json()["data"][0]
        assert admin.delete(f"/admin/keys/{key['id']}").json()["revoked"]
        assert [
            line["tenant"] for line in admin.get("/admin/usage", params={"tenant": "new"}).json()["lines"]
        ] == ["new"]
        assert admin.delete("/admin/tenants/new").status_code == 204
        assert admin.get("/admin/tenants/new").status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "../../etc/passwd",
        "%2e%2e%2fetc%2fpasswd",
        "a%00b",
        "' OR 1=1 --",
        "a%0d%0aX-Evil:%201",
        "x" * 5000,
    ],
)
def test_ids_that_mean_something_elsewhere_mean_nothing(place: Place, name: str) -> None:
    with httpx.Client(base_url=place.admin, headers=place.headers("admin"), timeout=30) as admin:
        for path in (f"/admin/tenants/{name}", f"/admin/tenants/{name}/keys"):
            answer = admin.get(path)
            assert answer.status_code in (404, 405), path
            assert "x-evil" not in answer.headers
        assert admin.delete(f"/admin/keys/{name}").status_code in (404, 405)
        assert admin.delete(f"/admin/tenants/{name}").status_code in (404, 405)
        assert admin.post("/admin/tenants", json={"name": name}).status_code == 400
        assert {tenant["name"] for tenant in admin.get("/admin/tenants").json()["data"]} >= {"acme", "bolt"}
    answer = httpx.get(f"{place.server.url}/v1/models/{name}", headers=place.headers("acme"), timeout=30)
    assert answer.status_code == 404


def test_nothing_of_a_tenant_reaches_others_or_the_log(place: Place) -> None:
    assert ask(place, "bolt", SECRET, stop=["Bukhara"]).status_code == 200
    assert ask(place, "bolt", SECRET, nonsense=SECRET).status_code == 400
    mine = json.dumps([used(place, "acme"), ask(place, "acme").json(), ask(place, "acme", model="x").json()])
    assert "bolt" not in mine
    log = place.log.read_text()
    assert not any(word in log for word in ("Samarkand", "Bukhara", *place.keys.values()))
    page = httpx.get(f"{place.admin}/metrics", headers=place.headers("admin"), timeout=30).text
    assert 'tenant="bolt"' in page
    assert not any(word in page for word in ("Samarkand", *place.keys.values()))


@pytest.mark.parametrize(("accept", "kind"), [("", "text/plain; version=0.0.4"), (OPENMETRICS, OPENMETRICS[:42])])
def test_what_is_scraped_is_in_the_format_that_was_asked_for(place: Place, accept: str, kind: str) -> None:
    assert ask(place, "acme").status_code == 200
    headers = {**place.headers("admin"), "Accept": accept}
    answer = httpx.get(f"{place.admin}/metrics", headers=headers, timeout=30)
    assert answer.headers["content-type"].replace("; ", ";").startswith(kind.replace("; ", ";"))
    asked = {one.name: one for one in families(answer.text)}["faasmoe_requests"]
    assert ("acme", "length") in {(sample.labels["tenant"], sample.labels["outcome"]) for sample in asked.samples}


def test_promtool_has_nothing_to_say_of_a_server_with_tenants(place: Place) -> None:
    assert ask(place, "acme").status_code == 200
    said = promtool(httpx.get(f"{place.admin}/metrics", headers=place.headers("admin"), timeout=30).text)
    if said is None:
        pytest.skip(NO_PROMTOOL)
    assert said == ""


def test_a_server_stays_closed_when_its_last_tenant_is_gone(place: Place) -> None:
    """The last test of this server."""
    for tenant in list_tenants(place.database):
        remove_tenant(place.database, tenant.name)
    url = f"{place.server.url}/v1/models"
    assert wait_until(lambda: httpx.get(url, headers=place.headers("acme")).status_code == 401, 10)
    assert httpx.get(url).status_code == 401
    assert ask(place, "acme").status_code == 401


def test_without_tenants_a_server_for_everybody_has_to_be_wanted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0", "--host", "0.0.0.0"]
    done = subprocess.run(
        [*command, "--database", f"sqlite:///{tmp_path}/x.db"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "there are no tenants, so that whoever reaches it could use it" in done.stderr
