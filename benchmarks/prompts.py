"""Prompts alone, and prompts beside a response: with the measured budget of prompt tokens and with a fixed one.

- `alone_N_tokens_s`: tokens per second of a prompt of N tokens when nothing else runs.
- `beside_p95_ms`: the 95th percentile of the time between two tokens of a response while a prompt of 2048 tokens runs
  beside it, and `beside_tokens_s`, that prompt's tokens per second meanwhile.

The model has the geometry of Qwen1.5-MoE-A2.7B with 4 layers and random weights. All engines take turns, on the same
weights and functions. Needs 6 GB of disk in --folder, where the model is kept for the next time.
"""

from __future__ import annotations

import argparse
import itertools
import math
import queue
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.decode.models import make
from benchmarks.decode.serving import functions
from benchmarks.figures import Figures, report
from faasmoe.engine.engine import Engine
from faasmoe.engine.prompt_budget import PromptBudget
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.stats import StepStats
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

CONTEXT = 4096
ALONE, BESIDE = (512, 2048), 2048  # tokens of prompts
FIXED = 128  # tokens of prompts beside decodes, of the engine whose budget is not measured

console = Console(stderr=True)
Pieces = queue.SimpleQueue[Piece]


class Measured:
    """An engine, and the steps that it runs."""

    def __init__(self, serving: Runtime, budget: PromptBudget | None, options: EngineOptions) -> None:
        self.steps: list[StepStats] = []
        self._vocabulary = serving.model.vocabulary
        self._asked = itertools.count()
        self.engine = Engine(
            serving.model,
            serving.tokenizer,
            end_tokens=frozenset(),
            max_model_len=CONTEXT,
            options=options,
            costs=serving.dispatch.costs,
            observer=self.steps.append,
        )
        if budget:
            self.engine._scheduler = Scheduler(options, self.engine._memory, prompt_budget=budget)

    def ask(self, prompt: int, tokens: int, tenant: str = "") -> tuple[str, Pieces]:
        pieces: Pieces = queue.SimpleQueue()
        ids = torch.randint(self._vocabulary, (prompt,)).tolist()
        request = GenerationRequest(
            f"{next(self._asked)}",
            tuple(ids),
            SamplingParams(tokens, temperature=0, ignore_eos=True),
            tenant=tenant,
        )
        self.engine.submit(request, pieces.put)
        return request.id, pieces

    def alone(self, prompt: int) -> float:
        """Tokens per second."""
        started = time.perf_counter()
        wait(self.ask(prompt, 1)[1])
        return prompt / (time.perf_counter() - started)

    def beside(self, responses: int) -> tuple[list[float], float]:
        """Milliseconds of each step while a prompt runs beside `responses`, and the prompt's tokens per second."""
        talking = [self.ask(16, CONTEXT - 16, tenant=f"talks-{i}") for i in range(responses)]
        before = len(self.steps)
        while len(self.steps) < before + 4:
            time.sleep(0.01)
        started = time.perf_counter()
        wait(self.ask(BESIDE, 1, tenant="asks")[1])
        took = time.perf_counter() - started
        for name, pieces in talking:
            self.engine.cancel(name)
            wait(pieces)
        return [1e3 * s.seconds for s in self.steps[before + 4 :] if 0 < s.prompt_tokens < s.tokens], BESIDE / took


def wait(pieces: Pieces) -> None:
    """Until a request has ended."""
    while not (piece := pieces.get(timeout=600)).last:
        pass
    if piece.error:
        raise RuntimeError(piece.error)


@contextmanager
def engines(folder: Path, options: EngineOptions) -> Iterator[dict[str, Measured]]:
    with Runtime(make_plan(resolve(str(folder))), functions, CONTEXT) as serving:
        serving.platform.prewarm([block.name for block in serving.plan.blocks])
        by_name = {
            "fixed": Measured(serving, PromptBudget(math.inf, FIXED), options),
            "measured": Measured(serving, None, options),
        }
        yield by_name
        for its in by_name.values():
            its.engine.close()


def alone(by_name: dict[str, Measured], rounds: int) -> Figures:
    figures = Figures()
    for prompt in ALONE:
        rates: dict[str, list[float]] = {name: [] for name in by_name}
        for number in range(-1, rounds):  # the first round warms up
            for name, its in by_name.items():
                console.print(f"round {number + 1}/{rounds}: {prompt} tokens alone, {name}", end="\r")
                rate = its.alone(prompt)
                if number >= 0:
                    rates[name].append(rate)
        figures |= {f"{name}_alone_{prompt}_tokens_s": statistics.median(its) for name, its in rates.items()}
    return figures


def beside(by_name: dict[str, Measured], rounds: int, responses: int) -> Figures:
    gaps: dict[str, list[float]] = {name: [] for name in by_name}
    rates: dict[str, list[float]] = {name: [] for name in by_name}
    for number in range(-1, rounds):
        for name, its in by_name.items():
            console.print(f"round {number + 1}/{rounds}: beside {responses}, {name}", end="\r")
            milliseconds, rate = its.beside(responses)
            if number >= 0:
                gaps[name] += milliseconds
                rates[name].append(rate)
    figures = Figures()
    for name, times in gaps.items():
        figures |= {
            f"{name}_beside_p50_ms": statistics.median(times),
            f"{name}_beside_p95_ms": statistics.quantiles(times, n=20)[-1],
            f"{name}_beside_tokens_s": statistics.median(rates[name]),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--responses", type=int, default=1, help="beside which prompts run (default 1)")
    parser.add_argument("--latency", type=float, default=EngineOptions().inter_token_latency,
                        help="the target, --inter-token-latency of faasmoe serve")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=("alone", "beside"), default=("alone", "beside"))
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    folder = make(args.folder / "qwen1.5-moe-a2.7b-4", "--layers", "4")
    options = EngineOptions(kv_cache_bytes=1 << 30, speculation="off", inter_token_latency=args.latency)
    figures = Figures()
    with engines(folder, options) as by_name:
        if "alone" in args.only:
            figures |= alone(by_name, args.rounds)
        if "beside" in args.only:
            figures |= beside(by_name, args.rounds, args.responses)
    report(figures, {}, args.json)


if __name__ == "__main__":
    main()
