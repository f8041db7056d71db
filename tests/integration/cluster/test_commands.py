"""Commands for a cluster, as users type them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from faasmoe.platforms import registry
from faasmoe.platforms.base import Call
from tests import nodes
from tests.conformance.conftest import soon, spec
from tests.integration.servers import serve
from tests.waiting import wait_until


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[nodes.Agent]]:
    with nodes.cluster(tmp_path) as running:
        yield running


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "faasmoe.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_nodes_are_listed_with_what_they_have_done(agents: list[nodes.Agent], tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    with registry.start("nodes", (), **nodes.options(tmp_path)) as head:
        head.deploy([spec(f"f{i}", "echo", tmp_path / "artifact") for i in range(2)])
        head.invoke_many([Call(f"f{i}", [b"x"]) for i in range(2)], soon())
        listed = json.loads(run("nodes", "--pool", head.address, "--json"))
        table = run("nodes", "--pool", head.address)
        agents[0].process.kill()
        agents[0].process.wait()
        lost = json.loads(run("nodes", "--pool", head.address, "--json"))
    for each, agent in zip(listed, agents, strict=True):
        assert (each["name"], each["address"], each["state"]) == (agent.name, agent.address, "ready")
        assert (each["functions"], each["instances"], each["calls"], each["frames"]) == (1, 1, 1, 1)
        assert min(each["memory_used"], each["received"], each["sent"], each["round_trip"]) > 0
        assert f"{agent.name} {agent.address}" in table
    assert max(map(len, table.splitlines())) <= 80
    assert [(each["name"], each["state"]) for each in lost] == [("", "lost"), ("b", "ready")]
    assert "cannot be reached" in lost[0]["cause"]


def test_a_node_is_emptied_while_its_functions_are_called(agents: list[nodes.Agent], tmp_path: Path) -> None:
    (tmp_path / "artifact").write_text("A:")
    names = [f"f{i}" for i in range(8)]
    with registry.start("nodes", (), **nodes.options(tmp_path)) as head, ThreadPoolExecutor(1) as pool:
        head.deploy([spec(name, "echo", tmp_path / "artifact") for name in names])
        drained = threading.Event()

        def call() -> int:
            count = 0
            while not drained.is_set():
                replies = head.invoke_many([Call(name, [b"x"]) for name in names], soon())
                assert [bytes(reply) for reply in replies] == [b"A:x"] * 8
                count += 1
            return count

        calling = pool.submit(call)
        try:
            assert run("nodes", "drain", "a", "--pool", head.address) == "node a is empty\n"
            (a, b) = json.loads(run("nodes", "--pool", head.address, "--json"))
        finally:
            drained.set()
        assert calling.result() > 10
        assert (a["state"], a["functions"], a["instances"]) == ("draining", 0, 0)
        assert (b["state"], b["functions"], b["instances"]) == ("ready", 8, 8)
        run("nodes", "drain", "a", "--cancel", "--pool", head.address)
        assert wait_until(lambda: any("a" in hosts for hosts in head.membership.hosts.values()))
        agents[1].process.kill()  # then a cannot be emptied: nobody else is there
        command = [sys.executable, "-m", "faasmoe.cli.main", "nodes", "drain", "a", "--deadline", "0.5"]
        failed = subprocess.run(
            [*command, "--pool", head.address], capture_output=True, text=True, timeout=60, check=False
        )
        assert failed.returncode == 1
        assert "node a is not empty after 0.5 s: f0, f1, f2, f3, f4 and 3 more are left" in failed.stderr


def test_a_server_answers_with_experts_on_two_nodes(agents: list[nodes.Agent], tmp_path: Path) -> None:
    given = [
        text
        for name, value in nodes.options(tmp_path).items()
        for text in ("--platform-option", f"{name}={value}")
    ]
    with serve("--platform", "nodes", *given, "--dtype", "float32", "--block-size", "4") as server:
        ask = {"model": "faasmoe-demo", "prompt": "one two", "max_tokens": 12, "temperature": 0}
        models = httpx.get(f"{server.url}/v1/models", timeout=60).json()
        ask["model"] = models["data"][0]["id"]
        first = httpx.post(f"{server.url}/v1/completions", json=ask, timeout=120).raise_for_status().json()
        agents[0].process.kill()
        second = httpx.post(f"{server.url}/v1/completions", json=ask, timeout=120).raise_for_status().json()
        assert first["choices"][0]["text"] == second["choices"][0]["text"]
        assert first["usage"] == second["usage"]
