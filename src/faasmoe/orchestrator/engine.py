"""The engine: a thread that runs steps while there are requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch

from faasmoe.errors import EngineStopped, RequestError
from faasmoe.model.attention import Span
from faasmoe.model.dense import DenseModel
from faasmoe.orchestrator.request import GenerationRequest, Piece
from faasmoe.orchestrator.sampler import Sampler
from faasmoe.orchestrator.scheduler import Scheduler, Work
from faasmoe.orchestrator.sequence import Sequence
from faasmoe.orchestrator.text import Decoder, TextStream

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0
_CONTEXT_TOKENS = 5  # of the prompt, for the decoder: enough for a character of any script

Listener = Callable[[Piece], None]


@dataclass
class _Running:
    """Everything that belongs to a request in the engine."""

    request: GenerationRequest
    listener: Listener  # called on the engine's thread; must not block
    sequence: Sequence
    sampler: Sampler
    text: TextStream


class Engine:
    """Runs requests on a model. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        model: DenseModel,
        tokenizer: Decoder,
        *,
        end_tokens: frozenset[int],
        max_model_len: int,
        scheduler: Scheduler | None = None,
        threads: int | None = None,
    ) -> None:
        """`threads` for the dense part; None leaves torch's choice."""
        self.max_model_len = max_model_len
        self._model = model
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._scheduler = scheduler or Scheduler()
        self._threads = threads
        self._requests: dict[str, _Running] = {}
        self._work = threading.Condition()  # guards the two above and `_stopping`
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether requests are still taken."""
        return self._thread.is_alive() and not self._stopping

    def load(self) -> tuple[int, int]:
        """Requests running and waiting."""
        with self._work:
            return self._scheduler.running, self._scheduler.waiting

    def submit(self, request: GenerationRequest, listener: Listener) -> None:
        """Take a request; `listener` gets its pieces, the last one with a finish reason or an error.

        Raises `RequestError` if it does not fit the model, `EngineBusy`, or `EngineStopped` after `close`.
        """
        self._check(request)
        running = _Running(
            request,
            listener,
            Sequence(request),
            Sampler(request.params),
            TextStream(self._tokenizer, request.params.stop, request.prompt[-_CONTEXT_TOKENS:]),
        )
        with self._work:
            if not self.alive:
                raise EngineStopped("the orchestrator is shutting down")
            self._scheduler.add(running.sequence)
            self._requests[request.id] = running
            self._work.notify()

    def cancel(self, request_id: str) -> None:
        """Drop a request within one step; its listener is not called again. Unknown ids are fine."""
        with self._work:
            running = self._requests.pop(request_id, None)
            if running:
                self._scheduler.remove(running.sequence)

    def close(self) -> None:
        """End running requests with an error and stop the thread, within `_CLOSE_SECONDS`."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():  # it waits for a function; it goes with the process
            log.warning("the engine's last step did not end within %s s", _CLOSE_SECONDS)

    def _check(self, request: GenerationRequest) -> None:
        prompt, more = len(request.prompt), request.params.max_tokens
        if prompt == 0:
            raise RequestError("the prompt is empty", param="prompt")
        if prompt + more > self.max_model_len:
            raise RequestError(
                f"this model takes {self.max_model_len} tokens; the prompt has {prompt} and max_tokens asks for "
                f"{more} more",
                param="prompt" if prompt >= self.max_model_len else "max_tokens",
                code="context_length_exceeded",
            )

    def _run(self) -> None:
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # holds for the thread that says it
        while True:
            with self._work:
                while not (self._stopping or self._requests):
                    self._work.wait()
                if self._stopping:
                    break
                work = self._scheduler.next_step()
            try:
                self._step(work)
            except Exception as error:  # noqa: BLE001 - one bad step must not end the engine
                log.error("step failed: %s: %s", type(error).__name__, error)
                self._fail([w.sequence.id for w in work], f"{type(error).__name__}: {error}")
        self._fail(list(self._requests), "EngineStopped: the orchestrator is shutting down")

    def _step(self, work: list[Work]) -> None:
        tokens: list[int] = []
        positions: list[int] = []
        spans, ends = [], []
        for w in work:
            start = w.sequence.computed
            tokens += w.sequence.tokens[start : start + w.count]
            positions += range(start, start + w.count)
            spans.append(Span(w.sequence.cache, w.count))
            ends.append(len(tokens) - 1)
        complete = [(w, end) for w, end in zip(work, ends, strict=True) if w.completes]
        # a step of prompt chunks alone needs no logits, but models must be asked for some
        logits = self._model.forward(tokens, positions, spans, [end for _, end in complete] or [0])
        picked = {w.sequence.id: row for (w, _), row in zip(complete, logits, strict=False)}
        for w in work:
            w.sequence.computed += w.count
        with self._work:
            for request_id, row in picked.items():
                if running := self._requests.get(request_id):  # else cancelled meanwhile
                    self._advance(running, running.sampler.pick(row))

    def _advance(self, running: _Running, token: int) -> None:
        sequence, text = running.sequence, running.text
        sequence.tokens.append(token)
        ended = token in self._end_tokens
        shown = "" if ended else text.push(token)
        reason = None
        if ended or text.stopped:
            reason = "stop"
        elif sequence.generated == running.request.params.max_tokens:
            reason = "length"
        if reason:
            shown += text.flush()
            reason = "stop" if text.stopped else reason
            self._drop(running)
        if shown or reason:
            running.listener(Piece(shown, sequence.generated, reason))

    def _fail(self, request_ids: list[str], message: str) -> None:
        with self._work:
            for request_id in request_ids:
                if running := self._requests.get(request_id):
                    self._drop(running)
                    running.listener(Piece("", running.sequence.generated, error=message))

    def _drop(self, running: _Running) -> None:
        del self._requests[running.request.id]
        self._scheduler.remove(running.sequence)
