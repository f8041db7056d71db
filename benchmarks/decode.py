"""Tokens per second against transformers and llama.cpp on the same weights, and where the time of a step goes.

Takes turns with each peer, round after round. Needs `pip install gguf llama-cpp-python` and 25 GB of disk in --folder,
where the model (Qwen1.5-MoE-A2.7B's geometry, 4 layers) and llama.cpp's copies of it are kept for the next time.
Prints the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM

from benchmarks.figures import Figures, report
from benchmarks.peers import Peer, Task, Took
from faasmoe.engine.stats import StepStats
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.synthesis.synthesis import _byte_tokenizer
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.base import Platform
from faasmoe.platforms.inline.platform import InlinePlatform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

LIMITS = {
    "decode_vs_llamacpp": 0.9,
    "decode_int8_vs_llamacpp_q8": 0.9,
    "batch8_vs_llamacpp": 0.9,
    "prefill512_vs_llamacpp": 0.9,
    "faas_overhead_percent": 8.0,
    "step_overhead_ms": 4.0,
}
AT_MOST = {"faas_overhead_percent", "step_overhead_ms"}

ONE, EIGHT, PREFILL = Task(1, 16, 32, 0), Task(8, 16, 24, 0), Task(1, 512, 0, 0)

Run = Callable[[Task], Took]
console = Console(stderr=True)


@dataclass
class Ours:
    """A model that this project serves."""

    serving: Runtime
    asked: int = 0

    def run(self, task: Task) -> Took:
        """Prefill is the time of the same task with one token, decode what the others take beyond it."""
        first = self._time(replace(task, tokens=1))
        if not task.tokens:
            return Took(first, 0.0)
        return Took(first, self._time(replace(task, seed=task.seed + 1, tokens=task.tokens + 1)) - first)

    def _time(self, task: Task) -> float:
        torch.manual_seed(task.seed)
        vocabulary = int(self.serving.plan.architecture.text_config.vocab_size)
        prompts = torch.randint(vocabulary, (task.sequences, task.prompt)).tolist()
        params = SamplingParams(max_tokens=task.tokens, temperature=0, ignore_eos=True)
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        start = time.perf_counter()
        for tenant, prompt in enumerate(prompts):
            self.asked += 1
            request = GenerationRequest(f"{self.asked}", tuple(prompt), params, tenant=f"tenant-{tenant}")
            self.serving.engine.submit(request, pieces.put)
        ended = 0
        while ended < task.sequences:
            piece = pieces.get(timeout=600)
            if piece.error:
                raise RuntimeError(piece.error)
            ended += piece.last
        return time.perf_counter() - start


@contextmanager
def ours(folder: Path, platform: Callable[[], Platform], **plan: object) -> Iterator[Ours]:
    """With its functions started and its weights in the page cache."""
    options = EngineOptions(speculation="off")  # random weights repeat themselves
    with Runtime(make_plan(resolve(str(folder)), **plan), platform, 4096, options) as serving:  # type: ignore[arg-type]
        running = Ours(serving)
        serving.platform.prewarm([block.name for block in serving.plan.blocks])
        running.run(EIGHT)
        yield running


def functions() -> Platform:
    return start("local", PRELOAD, keep_alive=3600)


def take_turns(runs: dict[str, Run], tasks: dict[str, Task], rounds: int) -> dict[str, dict[str, list[Took]]]:
    """By task and by who ran it."""
    took: dict[str, dict[str, list[Took]]] = {task: {name: [] for name in runs} for task in tasks}
    for number in range(-1, rounds):  # the first round warms up
        for task_name, task in tasks.items():
            for name, run in runs.items():
                console.print(f"round {number + 1}/{rounds}: {task_name}, {name}", end="\r")
                result = run(replace(task, seed=10 * number + 100))
                if number >= 0:
                    took[task_name][name].append(result)
    return took


def rate(tooks: list[Took], task: Task) -> float:
    """Median tokens per second of decoding."""
    return statistics.median(task.sequences * task.tokens / took.decode for took in tooks)


def prefill_rate(tooks: list[Took], task: Task) -> float:
    return statistics.median(task.prompt / took.prefill for took in tooks)


def against_transformers(folder: Path, rounds: int) -> Figures:
    with ours(folder, functions) as mine, Peer("benchmarks.peers.transformers_eager", folder) as peer:
        took = take_turns({"ours": mine.run, "peer": peer.run}, {"decode": ONE}, rounds)["decode"]
    own, other = rate(took["ours"], ONE), rate(took["peer"], ONE)
    return {"transformers_tokens_s": other, "ours_beside_transformers_tokens_s": own,
            "decode_vs_transformers": own / other}  # fmt: skip


def against_q8(folder: Path, rounds: int) -> Figures:
    with (
        ours(folder, functions, quantize="int8") as mine,
        Peer("benchmarks.peers.llamacpp", folder, "Q8_0", f"{cores()}") as peer,
    ):
        took = take_turns({"ours": mine.run, "peer": peer.run}, {"decode": ONE}, rounds)["decode"]
    own, other = rate(took["ours"], ONE), rate(took["peer"], ONE)
    return {"decode_int8_tokens_s": own, "llamacpp_q8_tokens_s": other, "decode_int8_vs_llamacpp_q8": own / other}


def cores() -> int:
    return len(os.sched_getaffinity(0))


def against_llamacpp(folder: Path, rounds: int) -> Figures:
    tasks = {"one": ONE, "eight": EIGHT, "prefill": PREFILL}
    with ExitStack() as stack:
        mine = stack.enter_context(ours(folder, functions))
        whole = stack.enter_context(ours(folder, InlinePlatform))
        peer = stack.enter_context(Peer("benchmarks.peers.llamacpp", folder, "BF16", f"{cores()}"))
        took = take_turns({"ours": mine.run, "inline": whole.run, "llamacpp": peer.run}, tasks, rounds)
    one = {name: rate(tooks, ONE) for name, tooks in took["one"].items()}
    eight = {name: rate(tooks, EIGHT) for name, tooks in took["eight"].items()}
    prefill = {name: prefill_rate(tooks, PREFILL) for name, tooks in took["prefill"].items()}
    overheads = [
        100 * (with_functions.decode / inline.decode - 1)
        for with_functions, inline in zip(took["one"]["ours"], took["one"]["inline"], strict=True)
    ]
    return {
        **{f"decode_{name}_tokens_s": value for name, value in one.items()},
        **{f"batch8_{name}_tokens_s": value for name, value in eight.items()},
        **{f"prefill512_{name}_tokens_s": value for name, value in prefill.items()},
        "decode_vs_llamacpp": one["ours"] / one["llamacpp"],
        "batch8_vs_llamacpp": eight["ours"] / eight["llamacpp"],
        "prefill512_vs_llamacpp": prefill["ours"] / prefill["llamacpp"],
        "faas_overhead_percent": statistics.median(overheads),
    }


# what a step's time is for, by the names that engine and dispatch have for their parts
PHASES = {"dense": "dense", "pack": "routing", "invoke": "invocation", "combine": "combine", "sample": "sampling",
          "schedule": "scheduling", "account": "accounting"}  # fmt: skip


def step_times(folder: Path, task: Task) -> Figures:
    """Median milliseconds of a decoding step by phase."""
    with ours(folder, functions) as mine:
        engine, counts = mine.serving.engine, mine.serving.dispatch.counts
        steps: list[dict[str, float]] = []
        before = dict(counts.seconds)

        def observe(report: StepStats) -> None:
            nonlocal before
            now = dict(counts.seconds)
            phases = dict(report.phases)
            routed = {phase: now[phase] - before[phase] for phase in now}
            phases["dense"] = phases.pop("forward") - sum(routed.values())
            if report.prompt_tokens == 0:
                steps.append({**phases, **routed})
            before = now

        engine._observer = observe
        mine.run(task)
    return {
        name: 1e3 * statistics.median(step[phase] for step in steps)
        for phase, name in PHASES.items()
        if phase in steps[0]
    }


def where_time_goes(folder: Path, rounds: int) -> Figures:
    del rounds  # each step is one
    one, eight = (step_times(folder, task) for task in (ONE, EIGHT))
    return {f"step_{phase}_ms": took for phase, took in one.items()} | {
        f"step8_{phase}_ms": took for phase, took in eight.items()
    }


def step_overhead(folder: Path, rounds: int) -> Figures:
    """Everything of a step but the model's own layers and the platform's work, with 24 tiny layers."""
    del folder, rounds
    with tempfile.TemporaryDirectory() as temporary:
        times = step_times(make_tiny(Path(temporary) / "tiny"), Task(16, 16, 100, 0))
    return {f"tiny_{phase}_ms": took for phase, took in times.items()} | {
        "step_overhead_ms": sum(times.values()) - times["dense"] - times["invocation"]
    }


def tables(figures: Figures) -> str:
    """What was measured, as docs/performance.md has it."""
    rows = [
        ("one sequence, tokens/s", "decode_ours", "transformers", "decode_vs_transformers"),
        ("one sequence, tokens/s", "decode_ours", "decode_llamacpp", "decode_vs_llamacpp"),
        ("one sequence, int8 and q8_0, tokens/s", "decode_int8", "llamacpp_q8", "decode_int8_vs_llamacpp_q8"),
        ("eight sequences, tokens/s in all", "batch8_ours", "batch8_llamacpp", "batch8_vs_llamacpp"),
        ("a prompt of 512 tokens, tokens/s", "prefill512_ours", "prefill512_llamacpp", "prefill512_vs_llamacpp"),
    ]
    lines = ["| what | ours | peer | ratio | must reach |", "| --- | --- | --- | --- | --- |"]
    for what, own, other, ratio in rows:
        if ratio in figures:
            peer = "transformers" if other == "transformers" else "llama.cpp"
            mine = "ours_beside_transformers" if peer == "transformers" else own
            lines.append(
                f"| {what} | {figures[f'{mine}_tokens_s']:.1f} | {peer} {figures[f'{other}_tokens_s']:.1f} "
                f"| {figures[ratio]:.2f} | {LIMITS.get(ratio, '')} |"
            )
    lines += ["", "| ms a step | one sequence | eight | 24 tiny layers, 16 |", "| --- | --- | --- | --- |"]
    for phase in PHASES.values():
        its = [figures.get(f"{kind}_{phase}_ms") for kind in ("step", "step8", "tiny")]
        lines.append(f"| {phase} | " + " | ".join("" if ms is None else f"{ms:.2f}" for ms in its) + " |")
    return "\n".join(lines)


PARTS = {
    "transformers": against_transformers,
    "llamacpp": against_llamacpp,
    "q8": against_q8,
    "steps": where_time_goes,
    "overhead": step_overhead,
}


def make(folder: Path, *options: str) -> Path:
    if not folder.exists():
        command = [sys.executable, "-m", "faasmoe.cli.main", "models", "make", "qwen1.5-moe-a2.7b"]
        subprocess.run([*command, "--out", str(folder), *options], check=True)
    return folder


def make_tiny(folder: Path) -> Path:
    """24 layers of a tiny model, so that a step is nothing but overhead."""
    config = Qwen2MoeConfig(
        vocab_size=257, hidden_size=32, intermediate_size=32, moe_intermediate_size=16, num_hidden_layers=24,
        shared_expert_intermediate_size=32, num_attention_heads=2, num_key_value_heads=2, num_experts=8,
        num_experts_per_tok=2, eos_token_id=256,
    )  # fmt: skip
    Qwen2MoeForCausalLM(config).bfloat16().save_pretrained(folder)
    _byte_tokenizer().save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache/faasmoe/benchmarks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    folder = make(args.folder / "qwen1.5-moe-a2.7b-4", "--layers", "4")
    figures: Figures = {}
    for part in args.only:
        figures |= PARTS[part](folder, args.rounds)
    report(figures, LIMITS, args.json, at_least=LIMITS.keys() - AT_MOST)
    print(tables(figures))


if __name__ == "__main__":
    main()
