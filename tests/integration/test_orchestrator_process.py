"""The orchestrator as a process: what its death does to requests, and what ends with whom."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from faasmoe.model.source import resolve
from faasmoe.platforms.local.run_folder import RunFolder
from tests.integration.servers import Server, serve
from tests.integration.test_server import metric
from tests.streams import data_of
from tests.waiting import alive, wait_until

PROMPT = "It was a dark night, and"
LONG = 2000  # tokens; some minutes


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def body(**more: object) -> dict[str, object]:
    return {"model": "faasmoe-demo", "prompt": PROMPT, "temperature": 0, "max_tokens": 8, **more}


def complete(server: Server, **more: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json=body(**more), timeout=100)


def events(server: Server, began: threading.Event, **more: object) -> list[str]:
    """Data of all events of a stream; `began` is set with the first."""
    found = []
    url = f"{server.url}/v1/completions"
    with httpx.stream("POST", url, json=body(stream=True, **more), timeout=100) as answer:
        assert answer.status_code == 200
        for event in data_of(answer.iter_lines()):
            found.append(event)
            began.set()
    return found


def health(server: Server) -> tuple[int, str]:
    answer = httpx.get(f"{server.url}/health", timeout=30)
    return answer.status_code, answer.json()["status"]


def running(server: Server) -> float:
    return metric(server, "faasmoe_num_requests_running")


def kill(pid: int | None) -> None:
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def next_process(look: Callable[[], int | None], after: int | None) -> int:
    found: list[int] = []

    def there() -> bool:
        pid = look()
        if pid is not None and pid != after:
            found.append(pid)
        return bool(found)

    assert wait_until(there, 60)
    return found[0]


def check_503(answer: httpx.Response) -> None:
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_stopped"
    assert int(answer.headers["Retry-After"]) > 0


def test_a_killed_orchestrator_fails_what_runs_and_the_next_serves_what_comes(server: Server) -> None:
    wanted = complete(server).json()["choices"][0]["text"]
    instances = set(server.instances())
    killed = server.orchestrator()
    began = threading.Event()
    with ThreadPoolExecutor() as pool:
        stream = pool.submit(events, server, began, max_tokens=LONG)
        whole = pool.submit(complete, server, max_tokens=LONG)
        assert began.wait(60)
        assert wait_until(lambda: running(server) == 2)
        kill(killed)
        data = stream.result(60)
        check_503(whole.result(60))
    assert json.loads(data[-1])["error"]["code"] == "engine_stopped"
    assert "[DONE]" not in data
    assert len(data) > 1
    answer = complete(server)  # waits for the next one
    assert (answer.status_code, answer.json()["choices"][0]["text"]) == (200, wanted)
    assert health(server) == (200, "ok")
    assert server.orchestrator() != killed
    assert instances & set(server.instances())  # functions outlive the orchestrator that called them
    assert "faasmoe_orchestrator_restarts_total 1.0" in httpx.get(f"{server.url}/metrics", timeout=30).text


def test_the_gateway_is_small(server: Server) -> None:
    assert complete(server).status_code == 200
    pid = server.process.pid
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{server.orchestrator()}/maps").read_text()
    assert psutil.Process(pid).memory_full_info().pss < 120 << 20


def test_one_killed_while_it_starts_is_followed_by_another(server: Server) -> None:
    assert complete(server).status_code == 200
    orchestrator, first = server.orchestrator(), server.template()
    kill(first)  # and the kernel its orchestrator
    assert wait_until(lambda: health(server) == (503, "starting"))
    assert orchestrator is not None
    assert not alive(orchestrator)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(complete, server)
        second = next_process(server.template, after=first)
        kill(second)
        next_process(server.template, after=second)
        assert waiting.result(100).status_code == 200
    assert health(server) == (200, "ok")


def test_ten_kills_in_a_row_under_load(server: Server) -> None:
    wanted = complete(server, max_tokens=40).json()["choices"][0]["text"]
    done = threading.Event()

    def client() -> list[httpx.Response]:
        answers = []
        while not done.is_set():
            answers.append(complete(server, max_tokens=40))
        return answers

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            last = None
            for i in range(10):
                last = next_process(server.orchestrator, after=last)
                if i % 5 == 0:  # the others are killed while they start
                    assert wait_until(lambda: health(server) == (200, "ok") and running(server) > 0, 100)
                kill(last)
        finally:
            done.set()
        answers = [answer for each in clients for answer in each.result(200)]
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            check_503(answer)
        else:
            assert answer.json()["choices"][0]["text"] == wanted
    assert complete(server, max_tokens=40).json()["choices"][0]["text"] == wanted


def test_an_orchestrator_that_cannot_start_again_is_tried_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(resolve(None).folder, folder)
    errors = tmp_path / "errors"
    with errors.open("w") as stderr, serve(str(folder), stderr=stderr) as server:
        assert complete(server, model="model").status_code == 200
        (folder / "config.json").rename(folder / "gone.json")
        kill(server.template())
        assert wait_until(lambda: errors.read_text().count("holds no config.json") >= 2, 100)
        assert health(server) == (503, "starting")
        (folder / "gone.json").rename(folder / "config.json")
        assert wait_until(lambda: health(server) == (200, "ok"), 100)
        assert complete(server, model="model").status_code == 200
    assert re.search(r"the orchestrator did not start, trying again in 0\.\d s", errors.read_text())
    assert "Traceback" not in errors.read_text()


def test_a_killed_gateway_leaves_nothing_that_the_next_does_not_sweep(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(runtime=runtime) as server:
        assert complete(server).status_code == 200
        everybody = [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]
        assert len(everybody) > 10
        stopped = server.orchestrators() + [pid for pid in [server.template()] if pid]
        assert len(stopped) == 2
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)  # so that they do not notice that their sockets close
        os.kill(server.process.pid, signal.SIGKILL)
        assert wait_until(lambda: not any(map(alive, everybody)))
    assert list((runtime / "faasmoe").iterdir())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with RunFolder() as folder:  # every server makes one
        assert list((runtime / "faasmoe").iterdir()) == [folder.path]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_ended_while_it_starts_leaves_nothing(runtime: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "in the background", *command],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    try:
        starting = Server("", process, "")
        assert wait_until(lambda: starting.template() is not None)
        everybody = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(end)
        assert process.wait(60) == 128 + end
        assert wait_until(lambda: not any(map(alive, everybody)))
        assert list((runtime / "faasmoe").iterdir()) == []
    finally:
        process.kill()


def test_scale_to_zero_and_back_and_shutdown_ends_streams_with_an_error(tmp_path: Path, runtime: Path) -> None:
    options = ("--keep-alive", "0.5")
    began = threading.Event()
    with ThreadPoolExecutor() as pool:
        with serve(
            *options, cwd=tmp_path, runtime=runtime, end=signal.SIGTERM
        ) as server:  # outside the repository
            before = complete(server).json()["choices"]
            assert server.instances()
            assert wait_until(lambda: server.instances() == [])
            assert metric(server, "faasmoe_instances") == 0
            assert complete(server).json()["choices"] == before
            short = pool.submit(events, server, began, max_tokens=20)
            long = pool.submit(events, server, threading.Event(), max_tokens=LONG)
            assert began.wait(60)
            assert wait_until(lambda: running(server) > 0)
            everybody = psutil.Process(server.process.pid).children(recursive=True)
        assert short.result(10)[-1] == "[DONE]"
        last = json.loads(long.result(10)[-1])
    assert last["error"]["message"] == "the server is shutting down"
    assert server.process.returncode == 0
    assert list((runtime / "faasmoe").iterdir()) == []
    assert psutil.wait_procs(everybody, timeout=10)[1] == []


def test_no_text_of_tenants_is_logged_and_each_request_is_one_line(tmp_path: Path) -> None:
    marker = "zyxwabcd"
    chat = {"model": "faasmoe-demo", "messages": [{"role": "user", "content": f"Say {marker}."}], "max_tokens": 5}
    logged = tmp_path / "log"
    options = ("--log-format", "json", "--log-level", "debug")
    with logged.open("w") as stderr, serve(*options, stderr=stderr) as server:
        answer = complete(server, prompt=f"{PROMPT} {marker}", max_tokens=30, echo=True)
        text = answer.json()["choices"][0]["text"]
        assert marker in text
        assert json.loads(events(server, threading.Event(), prompt=marker, stop=marker)[0])["id"]
        url = f"{server.url}/v1/chat/completions"
        assert httpx.post(url, json=chat, timeout=100).status_code == 200
        assert httpx.post(url, json={**chat, "messages": marker}, timeout=100).status_code == 400
        assert complete(server, prompt=marker * 9000).status_code == 400
        assert complete(server, stop=[marker] * 9).status_code == 400
        with ThreadPoolExecutor() as pool:
            began = threading.Event()
            broken = pool.submit(events, server, began, prompt=marker, max_tokens=LONG)
            assert began.wait(60)
            kill(server.orchestrator())
            assert "error" in json.loads(broken.result(60)[-1])
        assert complete(server, prompt=marker).status_code == 200
    log = logged.read_text()
    assert marker not in log
    assert text.removeprefix(f"{PROMPT} {marker}").strip()[:20] not in log
    lines = [json.loads(line) for line in log.splitlines()]  # nothing else is printed
    assert all({"time", "level", "process", "logger", "message"} <= line.keys() for line in lines)
    assert {"gateway", "template"} <= {line["process"] for line in lines}
    ended = [line for line in lines if line["message"] == "request ended"]
    assert [line["outcome"] for line in ended] == ["length", "length", "length", "error", "length"]
    refused = [line["reason"] for line in lines if line["message"] == "request refused"]
    assert refused == ["invalid_request_error", "context_length_exceeded", "invalid_request_error"]
    first = ended[0]
    assert first["request"].startswith(answer.json()["id"])
    assert first["prompt_tokens"] == answer.json()["usage"]["prompt_tokens"]
    assert first["generation_tokens"] == 30
    assert 0 < first["first_token_seconds"] <= first["seconds"]
