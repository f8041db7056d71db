"""A model that this project serves, as the engine of a process of its own would."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.peers import Task, Took
from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.base import Platform
from faasmoe.platforms.registry import start
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

ONE, EIGHT, PREFILL = Task(1, 16, 32, 0), Task(8, 16, 24, 0), Task(1, 512, 0, 0)


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

    def params(self, tokens: int) -> SamplingParams:
        """Of all requests."""
        return SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)

    def _time(self, task: Task) -> float:
        torch.manual_seed(task.seed)
        vocabulary = int(self.serving.plan.architecture.text_config.vocab_size)
        prompts = torch.randint(vocabulary, (task.sequences, task.prompt)).tolist()
        params = self.params(task.tokens)
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
