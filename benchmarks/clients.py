"""Do 200 clients that stream at the same time all get their share?

Each is a tenant of its own, with a key and a connection to a real server of the demo model, and asks through the
`openai` client, again and again, `--requests` times, each time with another prompt; prompts differ in length, answers
do not (`ignore_eos`). All tenants have the same weight. With `--tenants 1` all clients are one tenant, within which
first come, first served.

A client's speed is given in two ways, slowest client over the mean of all each time:

- `slowest_over_mean`, to which the limit belongs: all its tokens over all its time, from its first request to its
  last token, with the waits in between, for a client that has to wait starves just as one that is served slowly;
- `slowest_over_mean_decoding`: its tokens but the first of each answer over the time from the first to the last.

`slowest_over_mean_first` is the first of the two for first requests alone, which all come in one instant. A step takes
fewer sequences than there are clients (`--max-sequences`): tenants take turns with them, while of one tenant's
sequences the first ones go on and who comes last waits for three answers before its own.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import openai
from rich.console import Console
from tests.integration.servers import serve

from benchmarks.figures import Figures, report
from faasmoe.tenancy.database.schema import open_database
from faasmoe.tenancy.keys import create_key
from faasmoe.tenancy.tenants import Tenant, add_tenant

LIMITS = {"clients_failed": 0, "slowest_over_mean": 0.7}
AT_LEAST = {"slowest_over_mean"}

MODEL = "faasmoe-demo"
TEXT = "It was a dark night, and the wind came over the sea. "
LENGTHS = (1, 2, 4, 8, 16)  # texts in a prompt: about 13 to 210 tokens
PATIENCE = 600.0  # seconds for one answer


@dataclass(frozen=True)
class Answer:
    """When a client asked and what came of it, in seconds of `time.perf_counter`."""

    asked: float
    first: float
    last: float
    tokens: int


async def ask(client: openai.AsyncOpenAI, prompt: str, tokens: int) -> Answer:
    """Raises `openai.OpenAIError` or, if the answer is not whole, `RuntimeError`."""
    asked = time.perf_counter()
    times: list[float] = []
    reason, got = None, 0
    stream = await client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=tokens, stream=True, stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    async for chunk in stream:
        for choice in chunk.choices:
            times.append(time.perf_counter())
            reason = choice.finish_reason
        if chunk.usage:
            got = chunk.usage.completion_tokens
    if reason != "length" or got != tokens:
        raise RuntimeError(f"an answer of {tokens} tokens ended with {reason!r} after {got}")
    return Answer(asked, times[0], times[-1], got)


async def stay(client: openai.AsyncOpenAI, number: int, requests: int, tokens: int) -> list[Answer]:
    """The answers that one client gets, one after the other."""
    lengths = (LENGTHS[(number + turn) % len(LENGTHS)] for turn in range(requests))
    prompts = (f"{number}. {turn}. {TEXT * length}" for turn, length in enumerate(lengths))
    return [await ask(client, prompt, tokens) for prompt in prompts]


async def all_at_once(
    url: str, keys: Sequence[str], clients: range, requests: int, tokens: int
) -> list[list[Answer] | BaseException]:
    """What each client gets, with the keys in turn."""
    certificates = ssl.create_default_context()  # of which each client would load its own, for seconds
    async with AsyncExitStack() as stack:
        made = []
        for number in clients:
            http = openai.DefaultAsyncHttpxClient(verify=certificates, timeout=PATIENCE)
            key = keys[number % len(keys)]
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http)
            made.append(await stack.enter_async_context(client))
        stays = (stay(client, number, requests, tokens) for number, client in zip(clients, made, strict=True))
        return await asyncio.gather(*stays, return_exceptions=True)


def speed(answers: Sequence[Answer]) -> float:
    """Tokens per second of all of its time."""
    return sum(answer.tokens for answer in answers) / (answers[-1].last - answers[0].asked)


def decoding_speed(answers: Sequence[Answer]) -> float:
    """Tokens per second of the time in which it was answered."""
    return sum(answer.tokens - 1 for answer in answers) / sum(answer.last - answer.first for answer in answers)


def slowest_over_mean(speeds: Sequence[float]) -> float:
    return min(speeds) / statistics.mean(speeds)


def figures_of(clients: Sequence[Sequence[Answer]]) -> Figures:
    answers = [answer for client in clients for answer in client]
    seconds = max(answer.last for answer in answers) - min(answer.asked for answer in answers)
    waits = statistics.quantiles((answer.first - answer.asked for answer in answers), n=20)
    alone = statistics.quantiles((client[0].first - client[0].asked for client in clients), n=20)
    return {
        "slowest_over_mean": slowest_over_mean([speed(client) for client in clients]),
        "slowest_over_mean_decoding": slowest_over_mean([decoding_speed(client) for client in clients]),
        "slowest_over_mean_first": slowest_over_mean([speed(client[:1]) for client in clients]),
        "client_tokens_s": statistics.mean(speed(client) for client in clients),
        "client_tokens_s_decoding": statistics.mean(decoding_speed(client) for client in clients),
        "total_tokens_s": sum(answer.tokens for answer in answers) / seconds,
        "ttft_p50_s": waits[9],
        "ttft_p95_s": waits[18],
        "ttft_first_p50_s": alone[9],
        "ttft_first_p95_s": alone[18],
    }


def keys_of(database: str, tenants: int) -> list[str]:
    """A key of each of so many new tenants."""
    keys = []
    with open_database(database) as opened:
        for number in range(tenants):
            add_tenant(opened, Tenant(f"tenant-{number}"))
            keys.append(create_key(opened, f"tenant-{number}")[0])
    return keys


def run(args: argparse.Namespace) -> list[list[Answer] | BaseException]:
    """What each client got."""
    with tempfile.TemporaryDirectory() as folder:
        database = f"sqlite:///{folder}/tenants.db"
        keys = keys_of(database, args.tenants or args.clients)
        options = ("--database", database, "--max-sequences", str(args.max_sequences), "--log-level", "warning")
        with serve(*options) as server:
            # starts functions
            asyncio.run(all_at_once(server.url, keys, range(args.clients, args.clients + 8), 1, 8))
            return asyncio.run(all_at_once(server.url, keys, range(args.clients), args.requests, args.tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--tenants", type=int, help="that share the clients; default: each is one of its own")
    parser.add_argument("--requests", type=int, default=4, help="of each client")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer, at least 2")
    parser.add_argument("--max-sequences", type=int, default=64, help="of the server")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    came = run(args)
    whole = [client for client in came if not isinstance(client, BaseException)]
    failures = [client for client in came if isinstance(client, BaseException)]
    for failure in failures:
        Console(stderr=True).print(f"a client failed: {type(failure).__name__}: {failure}", markup=False)
    figures: Figures = {"clients": len(came), "clients_failed": len(failures)}
    report(figures | (figures_of(whole) if whole else {}), LIMITS, args.json, AT_LEAST)


if __name__ == "__main__":
    main()
