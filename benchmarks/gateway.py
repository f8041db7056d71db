"""What can one tenant do to another through the gateway, with bodies, with refused requests, and with good ones?

A real server of the demo model on loopback, and tenants with keys. One of them streams; figures are its own:

- `stall_ms_hostile_body`: the longest time between two pieces of its streams beside another tenant that sends bodies
  of 4 MiB which are made to be expensive (`tests.hostile`), one after the other. `stall_ms_alone` is that without;
- `peak_mb_hostile_body`: the most memory (proportional set size, in 10^6 bytes) of the gateway and its readers
  meanwhile, over what they had before;
- `flood_share`: its tokens a second beside a flood of requests that are refused with 400, 401 and 429, over those
  alone, median of `--rounds`;
- `p95_ratio`: 95th percentile of its time to first token beside 50 requests of another tenant, over that beside one.

Clients share the machine with the server, where those of a real server have machines of their own. So hostile clients
are processes of their own with a niceness of 10: what they do takes little from the server, and what it does for them
is its own time. They send as fast as they are answered, floods over several connections; `hostile_bodies` and
`refusals_s` say how much that came to.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import openai
import psutil
from tests.hostile import hostile_bodies
from tests.integration.servers import Server, serve

from benchmarks.clients import MODEL, PATIENCE, TEXT, ask, keys_of
from benchmarks.fairness import BACKLOG, delays_of
from benchmarks.figures import Figures, report
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.tenants import Tenant, add_tenant

LIMITS = {"stall_ms_hostile_body": 100, "peak_mb_hostile_body": 100, "flood_share": 0.9, "p95_ratio": 1.5}
AT_LEAST = {"flood_share"}
READY = "begun"
NICENESS = 10
CONNECTIONS = 4  # of a flood, each kind of refusal
LONG, TOKENS, SHORT = 400, 24, 4  # tokens of answers


@dataclass
class Streamed:
    """What a client saw of its streams: seconds between pieces, and tokens a second."""

    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    @property
    def speed(self) -> float:
        return self.tokens / self.seconds


async def streams(url: str, key: str, seconds: float, name: str) -> Streamed:
    """One stream after the other, until so many seconds are over."""
    seen, turns = Streamed(), itertools.count()
    body = {"model": MODEL, "max_tokens": LONG, "stream": True, "ignore_eos": True}
    began = time.perf_counter()
    async with httpx.AsyncClient(timeout=PATIENCE, headers={"Authorization": f"Bearer {key}"}) as client:
        while time.perf_counter() - began < seconds:
            last = None
            prompt = f"{name}. {next(turns)}. {TEXT}"
            async with client.stream("POST", f"{url}/v1/completions", json={**body, "prompt": prompt}) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        now = time.perf_counter()
                        seen.gaps += [] if last is None else [now - last]
                        seen.tokens, last = seen.tokens + 1, now
                    if time.perf_counter() - began >= seconds:
                        break
    seen.seconds = time.perf_counter() - began
    return seen


@contextmanager
def beside(kind: str, *arguments: str) -> Iterator[list[int]]:
    """Beside a client of this module in a process of its own. At the end, what it has counted is in the list."""
    command = [sys.executable, "-m", "benchmarks.gateway", "--client", kind, *arguments]
    counted: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise RuntimeError(f"the client {kind} ended with {process.wait()}")
            yield counted
            if process.poll() is not None:
                raise RuntimeError(f"the client {kind} ended with {process.returncode}")
            counted.append(int(process.communicate("end\n", timeout=60)[0]))
        finally:
            process.kill()


async def bodies(url: str, key: str) -> AsyncIterator[int]:
    """Send hostile bodies, one after the other, in turns."""
    everything = list(hostile_bodies(MODEL).items())
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, headers=head) as client:
        for name, (path, body) in itertools.cycle(everything):
            answer = await client.post(f"/v1/{path}", content=body)
            if not 400 <= answer.status_code < 500:
                raise RuntimeError(f"{name} was answered with {answer.status_code}: {answer.text}")
            yield 1


async def refusals(url: str, good: str, limited: str) -> AsyncIterator[int]:
    """Send requests that are refused, as fast as they are, over several connections."""
    kinds = [(good, {"model": MODEL, "prompt": {}}), ("wrong", {}), (limited, {"model": MODEL, "prompt": "a"})]
    answered: asyncio.Queue[int] = asyncio.Queue(1000)

    async def again(key: str, body: object) -> None:
        head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, headers=head) as client:
            while True:
                answer = await client.post("/v1/completions", content=json.dumps(body))
                if not 400 <= answer.status_code < 500:
                    raise RuntimeError(f"answered with {answer.status_code}: {answer.text}")
                await answered.put(1)

    async with asyncio.TaskGroup() as group:
        for key, body in kinds * CONNECTIONS:
            group.create_task(again(key, body))
        while True:
            yield await answered.get()


async def crowd(url: str, key: str, size: str) -> AsyncIterator[int]:
    """Have so many good requests with the server all the time."""
    answered: asyncio.Queue[int] = asyncio.Queue(1000)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:

        async def again(number: int) -> None:
            for turn in itertools.count():
                await ask(client, f"{number}. {turn}. {TEXT}", TOKENS)
                await answered.put(1)

        async with asyncio.TaskGroup() as group:
            for number in range(int(size)):
                group.create_task(again(number))
            for _ in range(int(size)):  # until instances and all of them are there
                await answered.get()
            while True:
                yield await answered.get()


CLIENTS: dict[str, Callable[..., AsyncIterator[int]]] = {"bodies": bodies, "refusals": refusals, "crowd": crowd}


async def play(kind: str, arguments: Sequence[str]) -> None:
    """Be a client until a line comes, then say what was counted."""
    if kind != "crowd":
        os.nice(NICENESS)
    counted = 0

    async def count() -> None:
        nonlocal counted
        async for one in CLIENTS[kind](*arguments):
            if not counted:
                print(READY, flush=True)
            counted += one

    counting = asyncio.create_task(count())
    ending = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait([counting, ending], return_when=asyncio.FIRST_COMPLETED)
    if counting.done():
        counting.result()
    print(counted, flush=True)
    os._exit(0)  # its connections are nobody's concern


class Memory:
    """The most that the gateway and its readers take while this is entered, looked at ten times a second."""

    def __init__(self, server: Server) -> None:
        self._gateway = psutil.Process(server.process.pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.least = self.most = self._now()

    def _now(self) -> int:
        forkers = [p for p in self._gateway.children() if "faasmoe.readers.fork_server" in p.cmdline()]
        total = 0
        for process in [self._gateway, *forkers, *[r for n in forkers for r in n.children()]]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:  # it has ended meanwhile
                continue
        return total

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self.most = max(self.most, self._now())

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def hostile(server: Server, streams_key: str, bodies_key: str, seconds: float) -> Figures:
    """Streams alone and beside hostile bodies."""
    alone = asyncio.run(streams(server.url, streams_key, seconds, "alone"))
    with beside("bodies", server.url, bodies_key) as sent:
        pressed = asyncio.run(streams(server.url, streams_key, seconds, "pressed"))
    with Memory(server) as memory, beside("bodies", server.url, bodies_key):  # to look at it holds up our streams
        time.sleep(seconds)
    return {
        "stall_ms_alone": 1e3 * max(alone.gaps),
        "stall_ms_hostile_body": 1e3 * max(pressed.gaps),
        "p99_ms_alone": 1e3 * statistics.quantiles(alone.gaps, n=100)[98],
        "p99_ms_hostile_body": 1e3 * statistics.quantiles(pressed.gaps, n=100)[98],
        "peak_mb_hostile_body": (memory.most - memory.least) / 1e6,
        "hostile_bodies": sent[0],
    }


def flooded(server: Server, streams_key: str, good: str, limited: str, seconds: float, rounds: int) -> Figures:
    """Streams alone and beside a flood, in turns."""
    shares, refused = [], 0
    for turn in range(rounds):
        alone = asyncio.run(streams(server.url, streams_key, seconds, f"quiet {turn}"))
        with beside("refusals", server.url, good, limited) as counted:
            pressed = asyncio.run(streams(server.url, streams_key, seconds, f"flooded {turn}"))
        shares.append(pressed.speed / alone.speed)
        refused += counted[0]
    return {"flood_share": statistics.median(shares), "refusals_s": refused / (rounds * seconds)}


async def first_tokens(url: str, key: str, requests: int, name: str) -> list[float]:
    """Milliseconds to the first token of one request after the other."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
        answers = [await ask(client, f"{name}. {number}. {TEXT}", SHORT) for number in range(requests)]
    return [1e3 * (answer.first - answer.asked) for answer in answers]


def crowded(server: Server, asks: str, crowds: str, requests: int, rounds: int) -> Figures:
    """Times to first token beside one request and beside many, in turns."""
    took: dict[int, list[float]] = {1: [], BACKLOG: []}
    for turn in range(rounds):
        for size, its in took.items():
            with beside("crowd", server.url, crowds, str(size)):
                its.extend(asyncio.run(first_tokens(server.url, asks, requests // rounds, f"{turn}-{size}")))
    return delays_of(took)


def limited_key(database: str) -> str:
    """The key of a tenant that may ask nothing."""
    with open_database(database) as opened:
        add_tenant(opened, Tenant("limited", rpm=1, tpm=1))
        return create_key(opened, "limited")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of streams, each time")
    parser.add_argument("--requests", type=int, default=200, help="beside each crowd; 0: no crowds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--client", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        asyncio.run(play(args.client[0], args.client[1:]))
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/tenants.db"
        one, other = keys_of(database, 2)
        limited = limited_key(database)
        with serve("--database", database, "--max-sequences", "8", "--log-level", "error") as server:
            asyncio.run(first_tokens(server.url, one, 8, "first"))  # starts functions
            figures = hostile(server, one, other, args.seconds)
            figures |= flooded(server, one, other, limited, args.seconds / 2, args.rounds)
            if args.requests:
                figures |= crowded(server, one, other, args.requests, args.rounds)
    report(figures, LIMITS, args.json, AT_LEAST)


if __name__ == "__main__":
    main()
