"""Tokens per second beside transformers and llama.cpp, on the same weights, in turns."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.decode.models import make_wide
from benchmarks.decode.serving import EIGHT, ONE, PREFILL, functions, ours
from benchmarks.figures import Figures
from benchmarks.peers import Peer, Task, Took
from faasmoe.platforms.inline.platform import InlinePlatform

TASKS = {"decode": ONE, "batch8": EIGHT, "prefill512": PREFILL}

Run = Callable[[Task], Took]
console = Console(stderr=True)


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
    """Median tokens per second: of decoding, or of the prompt for a task without tokens."""
    if not task.tokens:
        return statistics.median(task.prompt / took.prefill for took in tooks)
    return statistics.median(task.sequences * task.tokens / took.decode for took in tooks)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def against_transformers(folder: Path, rounds: int) -> Figures:
    """One sequence."""
    with ours(folder, functions) as mine, Peer("benchmarks.peers.transformers_eager", folder) as peer:
        took = take_turns({"ours": mine.run, "peer": peer.run}, {"decode": ONE}, rounds)["decode"]
    own, other = rate(took["ours"], ONE), rate(took["peer"], ONE)
    return {"transformers_tokens_s": other, "ours_beside_transformers_tokens_s": own,
            "decode_vs_transformers": own / other}  # fmt: skip


def against_llamacpp(folder: Path, rounds: int) -> Figures:
    """All tasks in bfloat16, and what functions cost beside experts in the same process."""
    with ExitStack() as stack:
        mine = stack.enter_context(ours(folder, functions))
        whole = stack.enter_context(ours(folder, InlinePlatform))
        peer = stack.enter_context(Peer("benchmarks.peers.llamacpp", folder, "BF16", f"{cores()}"))
        took = take_turns({"ours": mine.run, "inline": whole.run, "llamacpp": peer.run}, TASKS, rounds)
    overheads = [
        100 * (with_functions.decode / inline.decode - 1)
        for with_functions, inline in zip(took["decode"]["ours"], took["decode"]["inline"], strict=True)
    ]
    rates = {
        f"{task}_{name}": rate(tooks, TASKS[task]) for task, its in took.items() for name, tooks in its.items()
    }
    return {
        **{f"{name}_tokens_s": value for name, value in rates.items()},
        **{f"{task}_vs_llamacpp": rates[f"{task}_ours"] / rates[f"{task}_llamacpp"] for task in TASKS},
        "faas_overhead_percent": statistics.median(overheads),
    }


def against_q8(folder: Path, rounds: int) -> Figures:
    """int8 beside Q8_0."""
    return _quantised(folder, rounds, ("int8", "Q8_0", "q8"), TASKS)


def against_q4(folder: Path, rounds: int) -> Figures:
    """int4 beside Q4_K_M."""
    return _quantised(folder, rounds, ("int4", "Q4_K_M", "q4"), TASKS)


def against_mxfp4(folder: Path, rounds: int) -> Figures:
    """int4 beside MXFP4, with experts of gpt-oss' shape."""
    wide = make_wide(folder.parent / "gpt-oss-20b-2")
    return _quantised(wide, rounds, ("int4", "MXFP4_MOE", "mxfp4"), {"decode": ONE})


def _quantised(folder: Path, rounds: int, formats: tuple[str, str, str], tasks: dict[str, Task]) -> Figures:
    """`formats`: ours, llama.cpp's, and what names of figures call the latter."""
    own_format, kind, short = formats
    with (
        ours(folder, functions, quantize=own_format) as mine,
        Peer("benchmarks.peers.llamacpp", folder, kind, f"{cores()}") as peer,
    ):
        took = take_turns({"ours": mine.run, "peer": peer.run}, tasks, rounds)
    figures: Figures = {}
    for name, task in tasks.items():
        own, other = rate(took[name]["ours"], task), rate(took[name]["peer"], task)
        figures[f"{name}_{own_format}_beside_{short}_tokens_s"] = own
        figures[f"{name}_llamacpp_{short}_tokens_s"] = other
        figures[f"{name}_{own_format}_vs_llamacpp_{short}"] = own / other
    return figures
