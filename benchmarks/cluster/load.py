"""Sequences that are generated one after the other, and the gaps between their tokens."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from faasmoe.engine.stats import StepStats
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams, TokenLogprob

PROMPT, TOKENS = 16, 64


@dataclass
class Sequence:
    """One that is generated, or was."""

    seed: int
    scores: list[TokenLogprob] = field(default_factory=list)  # of its tokens
    ended: bool = False
    error: str = ""


class Load:
    """Keeps so many sequences running, from its making to `stop`. A sequence with the same seed has the same prompt."""

    def __init__(self, serving: Runtime, width: int = 4) -> None:
        self.sequences: list[Sequence] = []
        self._serving = serving
        self._seeds = itertools.count()
        self._changed = threading.Condition()
        self._stopping = False
        self._steps: list[tuple[float, int]] = []  # when each ended, and its tokens
        self._observer = serving.engine._observer
        serving.engine._observer = self._step
        for _ in range(width):
            self._begin(next(self._seeds))

    def _begin(self, seed: int) -> None:
        sequence = Sequence(seed)
        self.sequences.append(sequence)
        submit(self._serving, sequence, self._came)

    def _came(self, sequence: Sequence) -> None:
        with self._changed:
            self._changed.notify_all()
            if sequence.ended and not self._stopping:
                self._begin(next(self._seeds))

    def _step(self, report: StepStats) -> None:
        self._steps.append((time.monotonic(), report.tokens))
        if self._observer:
            self._observer(report)

    def run(self, seconds: float) -> None:
        """Let it run on."""
        time.sleep(max(0.0, seconds))

    def rate(self, since: float) -> float:
        """Tokens a second since an instant of `time.monotonic`."""
        return sum(tokens for ended, tokens in list(self._steps) if ended >= since) / (time.monotonic() - since)

    def gap(self, since: float) -> float:
        """The longest time between two steps, of those that ended after `since`: all sequences take part in each."""
        times = [ended for ended, _ in self._steps]
        return max((after - before for before, after in itertools.pairwise(times) if after >= since), default=0.0)

    def stop(self) -> None:
        """Let those that run come to their end. Raises `TimeoutError`."""
        with self._changed:
            self._stopping = True
            self._wait(self.sequences)

    def failed(self) -> int:
        """How many have failed so far."""
        return sum(bool(sequence.error) for sequence in self.sequences)

    def differing(self) -> int:
        """How many have other tokens, or scores of them, than when nothing disturbs them.

        Generates all again. For a load that has stopped.
        """
        done: list[Sequence] = [Sequence(sequence.seed) for sequence in self.sequences]
        for sequence in done:
            submit(self._serving, sequence, lambda _: self._notify())
        with self._changed:
            self._wait(done)
        return sum(one.scores != other.scores for one, other in zip(self.sequences, done, strict=True))

    def _wait(self, sequences: list[Sequence]) -> None:
        if not self._changed.wait_for(lambda: all(sequence.ended for sequence in sequences), 600):
            raise TimeoutError("sequences have not ended")

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def submit(serving: Runtime, sequence: Sequence, came: Callable[[Sequence], None]) -> None:
    """Have a sequence generated; `came` is called with it for each piece."""
    chance = torch.Generator().manual_seed(sequence.seed)
    vocabulary = int(serving.plan.architecture.text_config.vocab_size)
    prompt = torch.randint(vocabulary, (PROMPT,), generator=chance).tolist()
    params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True, logprobs=0)

    def receive(piece: Piece) -> None:
        sequence.scores += piece.logprobs
        sequence.ended, sequence.error = piece.last, piece.error or ""
        came(sequence)

    request = GenerationRequest(
        f"{time.monotonic_ns()}", tuple(prompt), params, tenant=f"tenant-{sequence.seed % 4}"
    )
    serving.engine.submit(request, receive)
