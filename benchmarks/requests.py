"""How many chats a second the gateway takes, without a model behind it, beside what uvicorn alone answers.

A chat asks for one token. It passes keys, limits, a reader with the demo model's tokenizer, and metrics, and a played
orchestrator answers at once. The echo is an application of uvicorn's that reads the same body and answers with as many
bytes. Both run as processes of their own, under the same load: connections that are kept, each with one request at a
time, from a third process. On two cores all of them share what there is. Runs alternate; figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from tests.tenancies import PlayedTenancy
from tests.unit.api.apps import Orchestrator

from benchmarks.figures import report
from faasmoe.api.app import create_app
from faasmoe.api.http_options import HttpOptions
from faasmoe.api.metrics.metrics import Metrics
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.platforms.base import PoolStatus
from faasmoe.protocol.config import About
from faasmoe.protocol.request import Piece
from faasmoe.readers.pool import Readers

AT_LEAST = {"requests_s_over_echo"}
LIMITS = {"requests_s_over_echo": 0.25}
CONNECTIONS, SECONDS = 16, 4.0
BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "How is the sea?"}], "max_tokens": 1}
).encode()
_ANSWER = b'{"id":"' + b"x" * 400 + b'"}'


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


async def serve(kind: str, descriptor: int) -> None:
    """Serve on a listening socket that this process has inherited."""
    listener = socket.socket(fileno=descriptor)

    async def run(app: Any) -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none", http="h11")
        await uvicorn.Server(config).serve(sockets=[listener])

    if kind == "echo":
        await run(echo)
        return
    plan = make_plan(resolve(None), None)
    with tempfile.TemporaryDirectory() as folder:
        plan.tokenizer.save(Path(folder))
        orchestrator = Orchestrator([Piece("a", 1, "length")])
        orchestrator.about = About("a", 1, 1, plan.architecture.text_config.vocab_size, 2048)
        tenancy, options = PlayedTenancy(), HttpOptions()
        async with Readers(False) as readers:
            await readers.load(Path(folder), options.bounds("m", orchestrator.about))
            metrics = Metrics(orchestrator, lambda: PoolStatus(functions=[], memory_used=0), tenancy)  # type: ignore[arg-type]
            await run(create_app("m", orchestrator, readers, metrics, tenancy))  # type: ignore[arg-type]


async def load(port: int, seconds: float) -> float:
    """Requests a second that are answered with status 200."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    end = time.perf_counter() + seconds

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        count = 0
        while time.perf_counter() < end:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            length = next(line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            count += 1
        writer.close()
        return count

    start = time.perf_counter()
    counts = await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return sum(counts) / (time.perf_counter() - start)


@contextmanager
def server(kind: str) -> Iterator[int]:
    """The port of a server of this kind."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "benchmarks.requests", "--serve", kind, str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()])
        try:
            yield int(listener.getsockname()[1])
        finally:
            process.terminate()
            process.wait()


def loaded(port: int, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.requests", "--load", str(port), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve[0], int(options.serve[1])))
        return
    if options.load:
        print(asyncio.run(load(int(options.load[0]), float(options.load[1]))))
        return
    rates: dict[str, list[float]] = {"echo": [], "gateway": []}
    with server("echo") as plain, server("gateway") as gateway:
        for port in (plain, gateway):
            loaded(port, 1.0)  # it starts, and is warm
        for _ in range(options.rounds):
            rates["echo"].append(loaded(plain, SECONDS))
            rates["gateway"].append(loaded(gateway, SECONDS))
    figures = {f"{kind}_requests_s": statistics.median(found) for kind, found in rates.items()}
    figures["requests_s_over_echo"] = figures["gateway_requests_s"] / figures["echo_requests_s"]
    report(figures, LIMITS, options.json, AT_LEAST)


if __name__ == "__main__":
    main()
