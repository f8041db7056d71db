"""Does a tenant that floods a server delay another, as its clients see it?

A real server of the demo model; one tenant asks for short answers, one after the other, through the `openai` client. In
turns, another tenant has one request there all the time, or 50, whose client is a process of its own on the same cores:

- `p95_ratio`, to which the limit belongs: the 95th percentile of the time to first token beside 50, over that beside
  one.

`python -m benchmarks.fairness` asks the engine the same without HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import openai
from tests.integration.servers import serve

from benchmarks.clients import PATIENCE, TEXT, ask, keys_of
from benchmarks.fairness import BACKLOG, delays_of
from benchmarks.figures import report

LIMITS = {"p95_ratio": 1.5}
TOKENS, SHORT = 24, 4
READY = "all are there"


async def crowd(url: str, key: str, size: int) -> None:
    """Have `size` requests with the server all the time, until cancelled. Says when each has been answered once."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
        answered: set[int] = set()

        async def again(number: int) -> None:
            turn = 0
            while True:
                await ask(client, f"{number}. {turn}. {TEXT}", TOKENS)
                turn += 1
                if number not in answered:
                    answered.add(number)
                    if len(answered) == size:
                        print(READY, flush=True)

        async with asyncio.TaskGroup() as group:
            for number in range(size):
                group.create_task(again(number))


@contextmanager
def crowded(url: str, key: str, size: int) -> Iterator[None]:
    """Beside so many requests of another tenant."""
    command = [sys.executable, "-m", "benchmarks.flood", "--crowd", str(size), url, key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise RuntimeError(f"the crowd ended with {process.wait()}")
            yield
            if process.poll() is not None:
                raise RuntimeError(f"the crowd ended with {process.returncode}")
        finally:
            process.kill()


async def first_tokens(url: str, key: str, requests: int, name: str) -> list[float]:
    """Milliseconds to the first token of one request after the other."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
        answers = [await ask(client, f"{name}. {number}. {TEXT}", SHORT) for number in range(requests)]
    return [1e3 * (answer.first - answer.asked) for answer in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="of the one that asks, beside each crowd")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-sequences", type=int, default=8, help="of the server; others wait")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--crowd", nargs=3, metavar=("SIZE", "URL", "KEY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.crowd:
        asyncio.run(crowd(args.crowd[1], args.crowd[2], int(args.crowd[0])))
    took: dict[int, list[float]] = {1: [], BACKLOG: []}
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/tenants.db"
        asks, floods = keys_of(database, 2)
        options = ("--database", database, "--max-sequences", str(args.max_sequences), "--log-level", "warning")
        with serve(*options) as server:
            asyncio.run(first_tokens(server.url, asks, 8, "first"))  # starts functions
            for turn in range(args.rounds):
                for size, its in took.items():
                    with crowded(server.url, floods, size):
                        some = first_tokens(server.url, asks, args.requests // args.rounds, f"{turn}-{size}")
                        its.extend(asyncio.run(some))
    report(delays_of(took), LIMITS, args.json)


if __name__ == "__main__":
    main()
