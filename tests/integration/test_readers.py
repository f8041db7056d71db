"""Real readers, and what bodies, templates and signals do to them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from faasmoe.api.parsed_request import Bounds, ParsedRequest
from faasmoe.errors import CheckpointError, EngineStopped, RequestError
from faasmoe.readers import lane
from faasmoe.readers.pool import Readers
from tests.hostile import hostile_bodies
from tests.tokenizers import CHATML, chatml

BOUNDS = Bounds("m", 100_000, 1_000_000)
Use = Callable[[Readers], Awaitable[Any]]


def chat(*contents: str) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages}).encode()


def completion(prompt: object) -> bytes:
    return json.dumps({"model": "m", "prompt": prompt}).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer whose template does what the first message says."""
    path = tmp_path_factory.mktemp("tokenizer")
    hostile = {
        "loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "number": "{{ (6 + messages | length) ** (10 ** 8) }}",  # of constants alone every request would compute it
        "allocate": "{{ messages[0].role * 10 ** 12 }}",
        "grow": "{% set n = namespace(x='aa') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    }
    branches = [f"{{% if messages[0].content == '{name}' %}}{text}{{% endif %}}" for name, text in hostile.items()]
    chatml("".join([*branches, CHATML])).save_pretrained(path)
    return path


def use(folder: Path, what: Use, bounds: Bounds = BOUNDS) -> Any:
    async def all_of_it() -> Any:
        async with Readers() as readers:
            await readers.load(folder, bounds)
            return await what(readers)

    return asyncio.run(asyncio.wait_for(all_of_it(), 120))


def family() -> dict[str, psutil.Process]:
    """The fork server and the readers of this process, those of large bodies under their own name."""
    me = psutil.Process()
    found: dict[str, psutil.Process] = {}
    for child in me.children():
        with suppress(psutil.Error):  # of one that has ended, or ends meanwhile
            if "faasmoe.readers.fork_server" in child.cmdline():
                found["fork server"] = child
                found |= {"large" if p.nice() > me.nice() else "small": p for p in child.children()}
    return found


async def until(true: Callable[[], bool]) -> None:
    for _ in range(3000):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not come within 30 s")


async def outcome(readers: Readers, body: bytes, kind: Any = "chat") -> Any:
    try:
        return await readers.read(kind, "t", body)
    except (RequestError, EngineStopped) as error:
        return error


def test_what_a_template_does_costs_one_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "_CPU_SECONDS", 0.3)

    async def what(readers: Readers) -> tuple[list[Any], Any]:
        names = ["loop", "number", "allocate", "grow", "recursion"]
        refused = [await outcome(readers, chat(name)) for name in names]
        return refused, await readers.read("chat", "t", chat("hello"))

    refused, asked = use(folder, what)
    assert all(isinstance(error, RequestError) for error in refused), refused
    assert ["too long" in str(error) for error in refused[:2]] == [True, True]
    assert isinstance(asked, ParsedRequest)


def test_others_go_on_while_a_template_loops(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies have a reader of their own, and no reader is the gateway's loop."""
    monkeypatch.setattr(lane, "_CPU_SECONDS", 0.3)
    monkeypatch.setattr(lane, "_CPU_SECONDS_A_BYTE", 0.0)

    async def what(readers: Readers) -> tuple[Any, int]:
        looping = asyncio.create_task(outcome(readers, chat("loop", "x" * 100_000)))
        answered = 0
        while not looping.done():
            assert isinstance(await readers.read("chat", "t", chat("hello")), ParsedRequest)
            answered += 1
        return looping.result(), answered

    error, answered = use(folder, what)
    assert isinstance(error, RequestError)
    assert answered > 10


def test_a_process_that_is_killed_or_frozen_fails_no_request(folder: Path) -> None:
    async def what(readers: Readers) -> list[Any]:
        answers = []
        for who, number in itertools.product(("small", "fork server"), (signal.SIGKILL, signal.SIGSTOP)):
            await until(lambda: len(family()) == 3)
            found = family()
            found[who].send_signal(number)
            if (who, number) == ("fork server", signal.SIGSTOP):
                found["small"].kill()  # what is frozen has nothing to do until then
            answers.append(await outcome(readers, chat("hello")))
            # a reader may outlive its server
            await until(lambda victim=found[who]: victim not in family().values())
        return answers

    for asked in use(folder, what):
        assert isinstance(asked, ParsedRequest), asked


def test_readers_leave_signals_to_the_gateway_have_no_threads_and_no_secrets_and_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAASMOE_DATABASE", "postgresql://user:secret@host/db")

    async def what(readers: Readers) -> list[psutil.Process]:
        await readers.read("chat", "t", chat("hello"))
        await until(lambda: len(family()) == 3)
        found = family()
        for process in found.values():
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                process.send_signal(number)
        await readers.read("chat", "t", chat("hello"))
        for process in found.values():
            assert process.num_threads() == 1
            assert "user:secret@host" not in str(process.environ())
            assert not [each.path for each in process.memory_maps() if "torch" in each.path]
        return list(found.values())

    assert not psutil.wait_procs(use(folder, what), 30)[1]


def test_memory_that_a_body_took_is_given_back(folder: Path) -> None:
    def resident() -> int:
        return int(family()["large"].memory_info().rss)

    async def what(readers: Readers) -> None:
        await until(lambda: len(family()) == 3)
        before = resident()
        for _ in range(2):
            asked = await outcome(readers, completion("naïve 夜 " * 100_000), "completions")
            assert isinstance(asked, ParsedRequest)
            await until(lambda: "large" in family() and resident() < before + (64 << 20))

    use(folder, what)


def test_hostile_bodies_hold_up_nobody_s_loop(folder: Path) -> None:
    bodies = hostile_bodies("m").values()

    async def what(readers: Readers) -> tuple[list[Any], float]:
        longest, last, ended = 0.0, time.thread_time(), False

        async def beat() -> None:
            nonlocal longest, last
            while not ended:
                await asyncio.sleep(0.001)
                now = time.thread_time()
                longest, last = max(longest, now - last), now

        beating = asyncio.create_task(beat())
        asks = [outcome(readers, body, "chat" if "chat" in path else "completions") for path, body in bodies]
        got = [await ask for ask in asks]
        ended = True
        await beating
        return got, longest

    got, longest = use(folder, what, Bounds("m", 100_000, 1024))
    assert all(isinstance(error, RequestError) for error in got)
    assert longest < 0.1  # seconds of CPU time in a row; 24 when the loop itself read bodies


def test_a_tokenizer_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="no usable tokenizer"):
        use(tmp_path, lambda readers: asyncio.sleep(0))


def test_readers_end_when_the_gateway_is_killed(folder: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from faasmoe.readers.pool import Readers;"
        "from faasmoe.api.parsed_request import Bounds\n"
        "async def main():\n"
        "    async with Readers() as readers:\n"
        "        await readers.load(Path(sys.argv[1]), Bounds('m', 10, 10))\n"
        "        print('ready', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    gateway = subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert gateway.stdout
        assert gateway.stdout.readline() == "ready\n"
        children = psutil.Process(gateway.pid).children(recursive=True)
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.wait(30)
        assert not psutil.wait_procs(children, 30)[1]
    finally:
        gateway.kill()
        if gateway.stdout:
            gateway.stdout.close()
