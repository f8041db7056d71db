"""The whole path: real processes, real sockets, the bundled checkpoint, the real `openai` client."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.integration.servers import MODEL, PROMPT, Server, metric, wait_for_metric
from tests.tools import tool


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as made:
        yield made


def greedy(client: openai.OpenAI, tokens: int = 24) -> str:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=tokens, temperature=0)
    return answer.choices[0].text


def test_the_greeting_can_be_pasted(server: Server) -> None:
    command = next(line for line in server.greeting.splitlines() if line.startswith("curl"))
    _, *arguments = shlex.split(command)
    done = subprocess.run([tool("curl", "curl"), *arguments], capture_output=True, check=True)
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 60


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL


def test_completion(client: openai.OpenAI) -> None:
    prompts = [PROMPT, "The king"]
    answer = client.completions.create(model=MODEL, prompt=prompts, max_tokens=5, temperature=0.7, seed=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 10
    again = client.completions.create(model=MODEL, prompt=prompts, max_tokens=5, temperature=0.7, seed=1)
    assert [c.text for c in again.choices] == [c.text for c in answer.choices]


def test_streamed_completion(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL,
        prompt=PROMPT,
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(c.choices[0].text for c in chunks if c.choices) == greedy(client)
    assert len(chunks) > 10
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24


def test_chat_and_streamed_chat_agree(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Tell me of the sea."}]
    options = {"model": MODEL, "messages": messages, "max_completion_tokens": 20, "temperature": 0}
    whole = client.chat.completions.create(**options)
    assert whole.choices[0].message.role == "assistant"
    chunks = list(client.chat.completions.create(**options, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 20


def test_a_stop_string_ends_the_text(client: openai.OpenAI) -> None:
    text = greedy(client)
    stop = text[8:14]
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=24, temperature=0, stop=stop)
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("completions", {"prompt": PROMPT, "max_tokens": "5"}, 400, "max_tokens"),
        ("completions", {"prompt": PROMPT, "max_tokens": 0}, 400, "max_tokens"),
        ("completions", {"prompt": PROMPT, "temperature": 9}, 400, "temperature"),
        ("completions", {"prompt": PROMPT, "nonsense": 1}, 400, "nonsense"),
        ("completions", {"prompt": [99999]}, 400, "prompt"),
        ("completions", {"prompt": ""}, 400, "prompt"),
        ("completions", {"prompt": []}, 400, "prompt"),
        ("completions", {}, 400, "prompt"),
        ("completions", {"prompt": "word " * 3000}, 400, "prompt"),
        ("completions", {"prompt": PROMPT, "model": "other"}, 404, "model"),
        ("chat/completions", {"messages": []}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": 5}]}, 400, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, 400, "tools"),
        ("nowhere", {}, 404, None),
    ],
)
def test_bad_bodies_get_openais_error(server: Server, path: str, body: dict, status: int, param: str) -> None:
    answer = httpx.post(f"{server.url}/v1/{path}", json={"model": MODEL, **body}, timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_a_body_that_is_no_json(server: Server) -> None:
    answer = httpx.post(f"{server.url}/v1/completions", content="{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "not valid JSON" in answer.json()["error"]["message"]


def test_a_huge_body_is_refused(server: Server) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"model": "faasmoe-demo", "prompt": "'
        for _ in range(80):
            yield b"x" * (1 << 16)

    answer = httpx.post(f"{server.url}/v1/completions", content=chunks(), timeout=30)
    assert answer.status_code == 413
    assert "larger than" in answer.json()["error"]["message"]


def test_the_client_raises_its_own_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="other", prompt=PROMPT)
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=PROMPT * 5000)
    assert caught.value.code == "context_length_exceeded"


def test_many_requests_at_once_give_the_text_of_each_alone(client: openai.OpenAI) -> None:
    alone = greedy(client)
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(greedy(client))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [alone] * 8


def test_killing_every_instance_in_mid_text_changes_no_token(server: Server, client: openai.OpenAI) -> None:
    wanted = greedy(client, 60)
    text, killed = "", 0
    stream = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, temperature=0, stream=True)
    for i, chunk in enumerate(stream):
        text += chunk.choices[0].text
        if i % 10 == 5:
            for pid in server.instances():
                os.kill(pid, signal.SIGKILL)
                killed += 1
    assert killed > 30
    assert text == wanted


def test_a_client_that_leaves_frees_its_place(server: Server, client: openai.OpenAI) -> None:
    stream = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2000, stream=True)
    next(iter(stream))
    stream.close()
    assert wait_for_metric(server, "faasmoe_num_requests_running", 0)


def test_health_and_metrics(server: Server, client: openai.OpenAI) -> None:
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok", "reasons": [], "open": True}
    before = metric(server, "faasmoe_generation_tokens_total")
    greedy(client, 7)
    assert metric(server, "faasmoe_generation_tokens_total") == before + 7
    assert metric(server, "faasmoe_functions_deployed") == 6 * 5
    assert metric(server, "faasmoe_invocations_total") > 6 * 7
    assert metric(server, 'faasmoe_requests_total{outcome="length",tenant=""}') > 0
    uncounted = metric(server, "faasmoe_invocations_total") - metric(server, "faasmoe_invocation_seconds_count")
    assert abs(uncounted) <= metric(server, "faasmoe_instance_deaths_total")  # killed between the two
    assert metric(server, "faasmoe_cold_starts_total") >= metric(server, "faasmoe_instances") > 0
    assert metric(server, 'faasmoe_cold_start_seconds_count{phase="first_touch"}') > 0
    assert metric(server, "faasmoe_iteration_tokens_sum") >= metric(server, "faasmoe_iteration_seconds_count")
    assert metric(server, "faasmoe_iteration_functions_sum") > 6 * 7
    assert metric(server, "faasmoe_cold_starts_met_total") > 0
    assert metric(server, "faasmoe_time_per_output_token_seconds_count") > 7
    assert metric(server, "faasmoe_prompt_tokens_total") > 0
    assert 0 <= metric(server, "faasmoe_kv_cache_usage_perc") <= 1
    assert metric(server, "faasmoe_orchestrator_restarts_total") == 0
    assert metric(server, "faasmoe_pool_memory_bytes") > metric(server, "faasmoe_instance_memory_bytes") > 0


def test_functions_can_be_looked_at(server: Server, client: openai.OpenAI) -> None:
    greedy(client, 3)
    command = [sys.executable, "-m", "faasmoe.cli.main", "functions", "--pool", str(server.pool())]
    told = json.loads(subprocess.run([*command, "--json"], capture_output=True, check=True, timeout=60).stdout)
    used = [function for function in told["functions"] if function["instances"]]
    assert len(told["functions"]) == 30
    assert used
    assert all(f["resident_bytes"] > 0 and f["p50"] <= f["p99"] and f["cold_starts"] > 0 for f in used)
    assert told["cold_start_phases"]["map"]["count"] >= len(used)
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "COLUMNS": "80"}
    ).stdout
    assert used[0]["name"] in shown
    assert "30 functions" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_functions_of_no_pool_are_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "functions", "--pool", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no pool of this user runs there" in done.stderr


def test_a_budget_too_small_for_a_token_is_refused_and_names_the_least() -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0", "--memory-budget"]
    for size, said in (("100MB", "a single token needs"), ("much", "--memory-budget much: must be a size")):
        done = subprocess.run([*command, size], capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_port_in_use_is_an_error_before_anything_starts(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert f"--port {port}: cannot listen there: Address already in use" in done.stderr


def test_an_unreachable_hub_is_one_line() -> None:
    command = [sys.executable, "-m", "faasmoe.cli.main", "serve", "--port", "0", "nobody/no-such-model"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 2
    assert "nobody/no-such-model is no folder here, is not in the local cache" in done.stderr
    assert "Traceback" not in done.stderr
