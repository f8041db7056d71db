"""The orchestrator as a process: what its death does to requests, and what ends with whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import torch

from faasmoe.model.checkpoint.index import Checkpoint
from faasmoe.model.checkpoint.source import resolve
from faasmoe.util.folders.run_folder import RunFolder
from tests.integration.servers import Server, metric, serve
from tests.memory import mapped_bytes, present_bytes, private_memory_holds
from tests.streams import data_of
from tests.waiting import alive, wait_until

PROMPT = "It was a dark night, and"
LONG = 2000  # tokens; some minutes


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "stderr"


@pytest.fixture(scope="module")
def run_folders() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def server(log: Path, run_folders: Path) -> Iterator[Server]:
    options = ("--log-format", "json", "--log-level", "debug")
    with log.open("w") as stderr, serve(*options, runtime=run_folders, stderr=stderr) as running:
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


def test_no_text_of_tenants_is_logged_and_each_request_is_one_line(server: Server, log: Path) -> None:
    """The first test of this server."""
    marker = "zyxwabcd"
    chat = {"model": "faasmoe-demo", "messages": [{"role": "user", "content": f"Say {marker}."}], "max_tokens": 5}
    answer = complete(server, prompt=f"{PROMPT} {marker}", max_tokens=30, echo=True)
    text = answer.json()["choices"][0]["text"]
    assert marker in text
    assert json.loads(events(server, threading.Event(), prompt=marker, stop=marker)[0])["id"]
    url = f"{server.url}/v1/chat/completions"
    assert httpx.post(url, json=chat, timeout=100).status_code == 200
    assert httpx.post(url, json={**chat, "messages": marker}, timeout=100).status_code == 400
    assert complete(server, prompt=marker * 9000).status_code == 400
    assert complete(server, stop=[marker] * 65).status_code == 400
    with ThreadPoolExecutor() as pool:
        began = threading.Event()
        broken = pool.submit(events, server, began, prompt=marker, max_tokens=LONG)
        assert began.wait(60)
        kill(server.orchestrator())
        assert "error" in json.loads(broken.result(60)[-1])
    assert complete(server, prompt=marker).status_code == 200
    assert wait_until(lambda: log.read_text().count('"request ended"') == 5)
    logged = log.read_text()
    assert marker not in logged
    assert text.removeprefix(f"{PROMPT} {marker}").strip()[:20] not in logged
    lines = [json.loads(line) for line in logged.splitlines()]  # nothing else is printed
    assert next(line for line in lines if line["message"] == "ready")["url"] == server.url
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


def test_a_killed_orchestrator_fails_what_runs_and_the_next_serves_what_comes(server: Server) -> None:
    wanted = complete(server).json()["choices"][0]["text"]
    instances = set(server.instances())
    killed, restarts = server.orchestrator(), metric(server, "faasmoe_orchestrator_restarts_total")
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
    assert metric(server, "faasmoe_orchestrator_restarts_total") == restarts + 1


def test_the_gateway_is_small(server: Server) -> None:
    assert complete(server).status_code == 200
    pid = server.process.pid
    assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
    assert "libtorch" in Path(f"/proc/{server.orchestrator()}/maps").read_text()
    assert psutil.Process(pid).memory_full_info().pss < 120 << 20


def test_no_routed_expert_is_in_the_orchestrator(server: Server) -> None:
    assert complete(server, max_tokens=24).status_code == 200
    checkpoint = Checkpoint.open(resolve(None).folder)
    experts = [name for name in checkpoint if ".mlp.experts." in name]
    dense = [name for name in checkpoint if ".mlp.experts." not in name]
    pid = server.orchestrator()
    places = [checkpoint.location(name) for name in experts]
    assert mapped_bytes(pid, places) == present_bytes([pid], places) == 0
    assert present_bytes([pid], [checkpoint.location(name) for name in dense]) > 0
    assert present_bytes(server.instances(), places) > 0  # so the meter does see experts where they are
    for name in experts[:: len(experts) // 12]:
        weights = checkpoint.tensor(name).flatten().view(torch.uint8)[512:576].numpy().tobytes()
        assert not private_memory_holds(pid, weights)


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


def test_kills_in_a_row_under_load(server: Server) -> None:
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
            for i in range(6):
                last = next_process(server.orchestrator, after=last)
                if i % 3 == 0:  # the others are killed while they start
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


@pytest.fixture
def hangup() -> Iterator[None]:
    """Processes end of SIGHUP, also under `nohup`, from which they would inherit that it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGHUP])
@pytest.mark.usefixtures("hangup")
def test_a_server_that_is_ended_while_it_starts_leaves_nothing(runtime: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0"]
    process = subprocess.Popen(
        ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "in the background", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
    )
    try:
        starting = Server("", process, "")
        assert wait_until(lambda: starting.template() is not None)
        everybody = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(end)
        process.send_signal(end)
        assert "Traceback" not in process.communicate(timeout=60)[1]
        assert process.returncode == 128 + end
        assert wait_until(lambda: not any(map(alive, everybody)))
        assert list((runtime / "faasmoe").iterdir()) == []
    finally:
        process.kill()


def test_a_killed_gateway_leaves_nothing_that_the_next_does_not_sweep(
    server: Server, run_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test of this server."""
    assert complete(server).status_code == 200
    everybody = [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]
    assert len(everybody) > 10
    stopped = server.orchestrators() + [pid for pid in [server.template()] if pid]
    assert len(stopped) == 2
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)  # so that they do not notice that their sockets close
    os.kill(server.process.pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(alive, everybody)))
    assert list((run_folders / "faasmoe").iterdir())
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_folders))
    with RunFolder() as folder:  # every server makes one
        assert list((run_folders / "faasmoe").iterdir()) == [folder.path]
