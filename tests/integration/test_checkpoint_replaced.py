"""A checkpoint that is replaced while it is served is never mixed with the one that was loaded."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from faasmoe.model.checkpoint.source import resolve
from tests.integration.servers import Server, metric, serve
from tests.waiting import wait_until

SHARD = "model.safetensors"
ASKED = {"model": "demo", "prompt": "It was", "max_tokens": 1, "temperature": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("models") / "demo"
    shutil.copytree(resolve(None).folder, copy)
    return copy


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def server(folder: Path, log: Path) -> Iterator[Server]:
    options = ("--keep-alive", "0.2", "--block-size", "24")
    with log.open("w") as stderr, serve(str(folder), *options, cwd=folder.parent, stderr=stderr) as running:
        yield running


def complete(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=ASKED, timeout=60)


def text(server: Server) -> str:
    answer = complete(server)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def refused(server: Server, what: str, folder: Path) -> None:
    answer = complete(server)
    assert answer.status_code == 503
    message = answer.json()["error"]["message"]
    assert f"{SHARD} {what} while the model was in use; restart the server" in message
    assert str(folder) not in message
    assert "/" not in message


def served_again(server: Server, before: str) -> None:
    assert wait_until(lambda: complete(server).status_code == 200)
    assert text(server) == before


def cold(server: Server) -> None:
    assert wait_until(lambda: not server.instances())


def test_scale_to_zero_and_back(server: Server) -> None:
    before = text(server)
    assert server.instances()
    cold(server)
    assert metric(server, "faasmoe_instances") == 0
    assert text(server) == before


def test_a_file_that_is_replaced_between_cold_starts_is_refused(server: Server, folder: Path, log: Path) -> None:
    before = text(server)
    cold(server)
    shard, kept = folder / SHARD, folder / "kept"
    shard.rename(kept)
    shutil.copy2(kept, shard)
    with shard.open("r+b") as stream:  # other weights, of the same size and age
        stream.seek(-4096, os.SEEK_END)
        stream.write(bytes(4096))
    os.utime(shard, ns=(1, kept.stat().st_mtime_ns))
    for _ in range(2):
        refused(server, "was replaced by another file", folder)
        cold(server)
    assert log.read_text().count(f"{shard} was replaced") == 1
    kept.replace(shard)
    served_again(server, before)


def test_a_file_that_is_cut_short_under_running_instances_is_refused(server: Server, folder: Path) -> None:
    before, shard = text(server), folder / SHARD
    content, found = shard.read_bytes(), shard.stat()
    os.truncate(shard, 4096)  # who reads on is killed by SIGBUS, this time
    assert complete(server).status_code == 503
    refused(server, f"was changed from {len(content)} to 4096 bytes", folder)
    shard.write_bytes(content)
    os.utime(shard, ns=(1, found.st_mtime_ns))
    served_again(server, before)


def test_a_file_that_is_written_to_is_refused_by_an_orchestrator_that_has_mapped_it(
    server: Server, folder: Path
) -> None:
    before, shard = text(server), folder / SHARD
    found = shard.stat()
    os.utime(shard, ns=(1, found.st_mtime_ns + 1))
    assert wait_until(lambda: complete(server).status_code == 503)
    refused(server, "was written to", folder)
    os.utime(shard, ns=(1, found.st_mtime_ns))
    served_again(server, before)


def test_another_template_does_not_load_another_checkpoint(server: Server, folder: Path) -> None:
    before, shard = text(server), folder / SHARD
    shard.rename(folder / "kept")
    shutil.copy2(folder / "kept", shard)
    template = server.template()
    assert template
    os.kill(template, signal.SIGKILL)
    assert wait_until(lambda: SHARD in complete(server).text)  # what met the one that was killed fails otherwise
    assert server.template() != template
    refused(server, "was replaced by another file", folder)
    (folder / "kept").replace(shard)
    served_again(server, before)


def test_an_orchestrator_that_cannot_start_again_is_tried_until_it_can(
    server: Server, folder: Path, log: Path
) -> None:
    before, so_far = text(server), len(log.read_text())
    (folder / "config.json").rename(folder / "gone.json")
    template = server.template()
    assert template
    os.kill(template, signal.SIGKILL)
    assert wait_until(lambda: log.read_text()[so_far:].count("holds no config.json") >= 2, 100)
    health = httpx.get(f"{server.url}/health", timeout=30)
    assert (health.status_code, health.json()["status"]) == (503, "starting")
    (folder / "gone.json").rename(folder / "config.json")
    served_again(server, before)
    assert re.search(r"the orchestrator did not start, trying again in 0\.\d s", log.read_text()[so_far:])
    assert "Traceback" not in log.read_text()[so_far:]
