"""The engine: a thread that runs steps while there are requests."""

from __future__ import annotations

import logging
import threading

import torch

from faasmoe.errors import EngineStopped, RequestError
from faasmoe.model.attention import Span
from faasmoe.model.dense import DenseModel
from faasmoe.orchestrator.request import GenerationRequest
from faasmoe.orchestrator.running import Listener, Running
from faasmoe.orchestrator.scheduler import Scheduler, Work
from faasmoe.orchestrator.text import Decoder

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 10.0


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
        self._requests: dict[str, Running] = {}
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
        running = Running(request, listener, self._tokenizer, self._end_tokens)
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
        spans = []
        wanted: list[int] = []  # rows of the step whose logits somebody needs
        takers: list[tuple[Running, int]] = []  # and how many of them
        for w in work:
            start = w.sequence.computed
            running = self._requests.get(w.sequence.id)  # None if cancelled since the step was planned
            offsets = running.wanted(w) if running else ()
            if running and offsets:
                wanted += [len(tokens) + offset for offset in offsets]
                takers.append((running, len(offsets)))
            tokens += w.sequence.tokens[start : start + w.count]
            positions += range(start, start + w.count)
            spans.append(Span(w.sequence.cache, w.count))
        # a step of prompt chunks alone needs no logits, but models must be asked for some
        logits = self._model.forward(tokens, positions, spans, wanted or [0])
        for w in work:
            w.sequence.computed += w.count
        with self._work:
            at = 0
            for running, count in takers:
                if running.request.id in self._requests and running.advance(logits[at : at + count]):
                    self._drop(running)
                at += count

    def _fail(self, request_ids: list[str], message: str) -> None:
        with self._work:
            for request_id in request_ids:
                if running := self._requests.get(request_id):
                    self._drop(running)
                    running.fail(message)

    def _drop(self, running: Running) -> None:
        del self._requests[running.request.id]
        self._scheduler.remove(running.sequence)
