"""Commands for a cluster, as users type them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from faasmoe.platforms import registry
from faasmoe.platforms.base import Call
from tests import nodes
from tests.conformance.conftest import soon, spec
from tests.integration.servers import serve


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
        assert agent.address in table
    assert [(each["name"], each["state"]) for each in lost] == [("", "lost"), ("b", "ready")]
    assert "cannot be reached" in lost[0]["cause"]


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
