"""Plays a workload against an engine and notes when what came back."""

from __future__ import annotations

import queue
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from faasmoe.errors import EngineStopped, FaasmoeError
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams

if TYPE_CHECKING:
    from faasmoe.model.text.tokenizer import Tokenizer
    from faasmoe.orchestrator.runtime import Runtime

_DEADLINE = 600.0  # seconds without any news

Listener = Callable[[Piece], None]
Submit = Callable[[GenerationRequest, Listener], None]
Encode = Callable[[Ask], tuple[int, ...]]  # the tokens of its prompt


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The outcome of one request. Instants are seconds after the workload's start; NaN stands for none."""

    tenant: str
    asked: float
    prompt_tokens: int
    tokens: int = 0  # of the answer
    first: float = field(default=float("nan"))
    end: float = field(default=float("nan"))
    error: str | None = None

    @property
    def end_to_end(self) -> float:
        """Seconds."""
        return self.end - self.asked


class _Play:
    """A workload that is being played: the requests sent and the outcomes so far."""

    def __init__(self, submit: Submit, encode: Encode) -> None:
        self.outcomes: list[Outcome] = []
        self._submit = submit
        self._encode = encode
        self._events: queue.SimpleQueue[tuple[float, Outcome, Piece]] = queue.SimpleQueue()
        self._waiting: dict[str, deque[Ask]] = {}  # tenants in closed loop: what they ask next
        self._running = 0
        self._started = time.monotonic()

    def run(self, asks: Iterable[Ask]) -> None:
        timed = deque[Ask]()
        for ask in asks:
            (timed if ask.time is not None else self._waiting.setdefault(ask.tenant, deque())).append(ask)
        for its in self._waiting.values():
            self._ask(its.popleft())
        while timed or self._running:
            due = timed[0].time if timed else None
            if due is not None and self._now() >= due:
                self._ask(timed.popleft())
                continue
            wait = _DEADLINE if due is None else min(_DEADLINE, due - self._now())
            try:
                self._take(*self._events.get(timeout=max(0.0, wait)))
            except queue.Empty:
                if due is None:
                    raise EngineStopped(f"no token came for {_DEADLINE} s") from None

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _ask(self, ask: Ask) -> None:
        prompt = self._encode(ask)
        outcome = Outcome(
            tenant=ask.tenant, asked=self._now() if ask.time is None else ask.time, prompt_tokens=len(prompt)
        )
        number = len(self.outcomes)
        self.outcomes.append(outcome)
        params = SamplingParams(ask.max_tokens, seed=number, ignore_eos=True)
        request = GenerationRequest(f"ask-{number}", prompt, params, tenant=ask.tenant)
        self._running += 1
        try:
            self._submit(request, partial(self._hear, outcome))
        except FaasmoeError as error:
            self._end(outcome, f"{type(error).__name__}: {error}")

    def _hear(self, outcome: Outcome, piece: Piece) -> None:
        self._events.put((self._now(), outcome, piece))

    def _take(self, at: float, outcome: Outcome, piece: Piece) -> None:
        if piece.tokens and not outcome.tokens:
            outcome.first = at
        outcome.tokens = max(outcome.tokens, piece.tokens)
        if piece.last:
            outcome.end = at
            self._end(outcome, piece.error)

    def _end(self, outcome: Outcome, error: str | None) -> None:
        outcome.error = error
        self._running -= 1
        if its := self._waiting.get(outcome.tenant):
            self._ask(its.popleft())


def drive(asks: Iterable[Ask], serving: Runtime) -> list[Outcome]:
    """`play` against a model that is served in this process."""
    vocabulary = int(serving.plan.architecture.text_config.vocab_size)
    return play(asks, serving.engine.submit, partial(encode, serving.tokenizer, vocabulary))


def play(asks: Iterable[Ask], submit: Submit, encode: Encode) -> list[Outcome]:
    """Ask a served model, wait for all answers. Answers have as many tokens as are asked for; seeds are fixed.

    A request that fails is in the outcomes with its error. Raises `EngineStopped` if nothing comes any more.
    """
    played = _Play(submit, encode)
    played.run(asks)
    return played.outcomes


def encode(tokenizer: Tokenizer, vocabulary: int, ask: Ask) -> tuple[int, ...]:
    """The tokens of a prompt: those of its text, or any where only their number is told."""
    if isinstance(ask.prompt, str):
        return tuple(tokenizer.encode(ask.prompt))
    draw = random.Random(f"{ask.tenant}/{ask.time}")
    return tuple(draw.randrange(vocabulary) for _ in range(ask.prompt))
