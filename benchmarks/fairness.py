"""Do tenants get their shares, and does one that floods the server delay another?

On the demo model, its functions as processes, the engine in this one; no two prompts begin alike.

- `tokens_ratio`: two tenants, each with more requests than a step takes, weights 3 : 1. Tokens that were generated for
  them, the one over the other, from when both have begun until `--seconds` later.
- `p95_ratio`: a tenant asks, one request after the other, for short answers. The 95th percentile of its time to first
  token while another tenant has 50 requests there all the time, over the same while the other has one.
"""

from __future__ import annotations

import argparse
import itertools
import queue
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from benchmarks.figures import Figures, report
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

LIMITS = {"tokens_ratio_error_percent": 10.0, "p95_ratio": 1.5}
WEIGHTS = {"heavy": 3.0, "light": 1.0}
BACKLOG = 50
PROMPT, TOKENS, SHORT = 24, 24, 4


@dataclass(kw_only=True)
class Crowd:
    """Tenants that always have so many requests with the engine."""

    serving: Runtime
    weights: dict[str, float]
    tokens: Counter[str] = field(default_factory=Counter)  # generated
    stopping: threading.Event = field(default_factory=threading.Event)
    # one for each that has ended
    left: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    here: set[str] = field(default_factory=set)  # names of those that have not
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, tenant: str) -> None:
        """One more request, and another when it has ended."""
        name = f"{tenant}-{next(self.numbers)}"
        seen = 0

        def take(piece: Piece) -> None:
            nonlocal seen
            self.tokens[tenant] += piece.tokens - seen
            seen = piece.tokens
            if piece.last:
                self.here.discard(name)
                threading.Thread(target=self.again, args=(tenant,)).start()  # the engine's thread must not submit

        self.here.add(name)
        request = prompt_of(self.serving, name, tenant, TOKENS, self.weights.get(tenant, 1.0))
        self.serving.engine.submit(request, take)

    def again(self, tenant: str) -> None:
        if self.stopping.is_set():
            self.left.release()
        else:
            self.ask(tenant)

    def end(self, count: int) -> None:
        """Cancel all that are there; what comes instead of one that ends just now is waited for."""
        self.stopping.set()
        for name in list(self.here):
            self.serving.engine.cancel(name)
        for _ in range(count):
            self.left.acquire()


def prompt_of(serving: Runtime, name: str, tenant: str, tokens: int, weight: float = 1.0) -> GenerationRequest:
    vocabulary = int(serving.plan.architecture.text_config.vocab_size)
    prompt = tuple(torch.randint(vocabulary, (PROMPT,)).tolist())
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    return GenerationRequest(name, prompt, params, tenant=tenant, weight=weight)


def shares(serving: Runtime, seconds: float) -> Figures:
    crowd = Crowd(serving=serving, weights=WEIGHTS)
    for _ in range(BACKLOG):
        for tenant in WEIGHTS:
            crowd.ask(tenant)
    while not all(crowd.tokens[tenant] > 10 * TOKENS for tenant in WEIGHTS):
        time.sleep(0.01)
    before = Counter(crowd.tokens)
    time.sleep(seconds)
    got = {tenant: crowd.tokens[tenant] - before[tenant] for tenant in WEIGHTS}
    crowd.end(BACKLOG * len(WEIGHTS))
    ratio, wanted = got["heavy"] / got["light"], WEIGHTS["heavy"] / WEIGHTS["light"]
    return {
        "tokens_heavy": got["heavy"],
        "tokens_light": got["light"],
        "tokens_ratio": ratio,
        "tokens_ratio_error_percent": 100 * abs(ratio / wanted - 1),
    }


def first_tokens(serving: Runtime, others: int, requests: int, name: str) -> list[float]:
    """Milliseconds to the first token of a tenant's requests, one after the other, beside `others` of another one."""
    crowd = Crowd(serving=serving, weights={})
    for _ in range(others):
        crowd.ask(f"crowd-{name}")
    while crowd.tokens[f"crowd-{name}"] < min(others, 8) * TOKENS:
        time.sleep(0.01)
    took = []
    for number in range(requests):
        pieces: queue.SimpleQueue[tuple[float, Piece]] = queue.SimpleQueue()
        started = time.perf_counter()
        request = prompt_of(serving, f"{name}-{number}", "asks", SHORT)
        serving.engine.submit(request, lambda piece, into=pieces: into.put((time.perf_counter(), piece)))  # type: ignore[misc]
        at, piece = pieces.get(timeout=60)
        took.append(1e3 * (at - started))
        while not piece.last:
            _, piece = pieces.get(timeout=60)
    crowd.end(others)
    return took


def delays(serving: Runtime, requests: int, rounds: int) -> Figures:
    """In turns, so that both see the same machine."""
    took: dict[int, list[float]] = {1: [], BACKLOG: []}
    for number in range(rounds):
        for others, its in took.items():
            its.extend(first_tokens(serving, others, requests // rounds, f"{number}-{others}"))
    return delays_of(took)


def delays_of(took: dict[int, list[float]]) -> Figures:
    """Of milliseconds to first tokens beside one and beside `BACKLOG` requests."""
    p95 = {others: statistics.quantiles(its, n=20)[-1] for others, its in took.items()}
    return {
        "p50_one_ms": statistics.median(took[1]),
        "p50_flood_ms": statistics.median(took[BACKLOG]),
        "p95_one_ms": p95[1],
        "p95_flood_ms": p95[BACKLOG],
        "p95_ratio": p95[BACKLOG] / p95[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-sequences", type=int, default=8, help="sequences a step; others wait (default 8)")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--requests", type=int, default=200, help="of the one that asks, beside each crowd")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    plan = make_plan(resolve(None))
    options = EngineOptions(max_sequences=args.max_sequences)
    with Runtime(plan, lambda: start("local", PRELOAD, keep_alive=3600), 512, options) as serving:
        serving.platform.prewarm([block.name for block in plan.blocks])
        figures = shares(serving, args.seconds) | delays(serving, args.requests, rounds=5)
    report(figures, LIMITS, args.json)


if __name__ == "__main__":
    main()
