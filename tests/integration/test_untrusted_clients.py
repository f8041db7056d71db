"""What any client may send, seen over HTTP alone: it is refused, costs the gateway little, and means nothing more."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import psutil
import pytest

from tests.hostile import hostile_bodies
from tests.integration.servers import MODEL, Server

CONTROL = "<|endoftext|>"


@pytest.mark.parametrize("kind", ["objects", "messages", "text"])
def test_a_body_that_is_made_to_cost_much_costs_the_gateway_little(server: Server, kind: str) -> None:
    """CPU time and memory of the process that everybody's streams go through."""
    path, body = hostile_bodies(MODEL)[kind]
    gateway = psutil.Process(server.process.pid)
    before, peak = sum(gateway.cpu_times()[:2]), most_memory(gateway)
    answer = httpx.post(
        f"{server.url}/v1/{path}", content=body, headers={"Content-Type": "application/json"}, timeout=120
    )
    assert answer.status_code == 400
    assert sum(gateway.cpu_times()[:2]) - before < 0.5  # seconds
    assert most_memory(gateway) - peak < 64 << 20


def most_memory(process: psutil.Process) -> int:
    """The most bytes that it has had so far."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def test_a_control_token_that_a_user_spells_is_text(server: Server) -> None:
    def tokens(content: str) -> int:
        body = {"model": MODEL, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)
        return int(answer.json()["usage"]["prompt_tokens"])

    assert tokens("a" + CONTROL * 10) - tokens("a") >= 10 * 3  # as itself it would be one


def test_a_request_with_two_lengths_is_the_last_of_its_connection(server: Server) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    hidden = f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(f"{head}2\r\n{{}}\r\n0\r\n\r\n{hidden}".encode())
        answers = b"".join(iter(lambda: connection.recv(4096), b""))  # until it is closed
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1 ") == 1


def test_there_are_no_pages_and_what_can_be_got_has_a_head(server: Server) -> None:
    assert {httpx.get(f"{server.url}/{page}").status_code for page in ("docs", "redoc", "openapi.json")} == {404}
    assert {httpx.head(f"{server.url}/{path}").status_code for path in ("health", "v1/models")} == {200}
