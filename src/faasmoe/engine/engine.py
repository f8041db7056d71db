"""The engine: a thread that runs steps while there are requests."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from functools import partial

import torch
from torch import Tensor

from faasmoe.engine.attempts import Attempts, Bill
from faasmoe.engine.batch import Batch
from faasmoe.engine.experts.costs import GB_SECONDS, StepCosts
from faasmoe.engine.grammar.compiler import GrammarCompiler
from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.kv.allocator import KVAllocator
from faasmoe.engine.output.detokenizer import Decoder
from faasmoe.engine.output.largest import finite_rows
from faasmoe.engine.request_check import check_request
from faasmoe.engine.request_state import Listener, RequestState
from faasmoe.engine.scheduler import Scheduler
from faasmoe.engine.stats import StepStats
from faasmoe.errors import EngineStopped, FaasmoeError, RequestError
from faasmoe.model.dense.dense import DenseModel
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.errors import ENDING, FAILED, client_message
from faasmoe.protocol.request import GenerationRequest

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
        options: EngineOptions | None = None,
        observer: Callable[[StepStats], None] | None = None,
        costs: StepCosts | None = None,
        grammars: GrammarCompiler | None = None,
    ) -> None:
        """`observer` is called after each step; `costs` are what the model's experts add to while a step runs.

        Without `grammars` requests with a grammar are refused.

        Raises `OptionError` if the KV cache memory cannot hold a single token.
        """
        self.max_model_len = max_model_len
        self.options = options or EngineOptions()
        self._model = model
        self._tokenizer = tokenizer
        self._end_tokens = end_tokens
        self._memory = KVAllocator.of(self.options, model.state_spec)
        self._scheduler = Scheduler(self.options, self._memory)
        self._speculates = self.options.speculation == "ngram" and self._memory.spec.truncatable
        self._observer = observer
        self._costs = costs or StepCosts()
        self._busy: dict[str, float] = defaultdict(float)  # GB-seconds by tenant, not taken yet
        self._grammars = grammars
        self._compiling: dict[str, RequestState] = {}  # requests that wait for their grammar
        self._requests: dict[str, RequestState] = {}
        self._stepping: list[RequestState] = []  # whose share of the current step is not known yet
        self._work = threading.Condition()  # guards all that is above and below
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while requests are taken."""
        return self._thread.is_alive() and not self._stopping

    def load(self) -> tuple[int, int]:
        """Requests running and waiting."""
        with self._work:
            return self._scheduler.running, self._scheduler.waiting + len(self._compiling)

    def gauges(self) -> dict[str, float]:
        """KV cache memory in tokens of sequences as long as the context; preemptions for lack of it; drafts."""
        tokens = partial(self._memory.spec.tokens_held, length=self.max_model_len)
        with self._work:
            return {
                "kv_cache_tokens": tokens(self._memory.total),
                "kv_cache_tokens_used": tokens(self._memory.used),
                "kv_cache_tokens_kept": tokens(self._memory.prefixes.nbytes),
                "preemptions": self._scheduler.preemptions,
                "speculation_proposed": self._scheduler.drafted,
                "speculation_accepted": self._scheduler.accepted,
            }

    def submit(self, request: GenerationRequest, listener: Listener) -> None:
        """Take a request; `listener` gets its pieces, the last one with a finish reason or an error.

        Raises `RequestError` if it fits neither the model nor the memory, `EngineBusy`, or `EngineStopped`.
        """
        self._check(request)
        running = RequestState(request, listener, self._tokenizer, self._end_tokens, speculates=self._speculates)
        with self._work:
            if not self.alive:
                raise EngineStopped("the orchestrator is shutting down, or has failed")
            if request.id in self._requests or request.id in self._compiling:
                raise RequestError(f"a request with the id {request.id} runs already", param="id")
            if request.params.grammar is None:
                self._add(running)
            else:
                self._compile(running, request.params.grammar)

    def cancel(self, request_id: str) -> None:
        """Drop a request within one step; its listener gets a last piece, which says so. Unknown ids are fine."""
        with self._work:
            if waiting := self._compiling.pop(request_id, None):
                self._tell(waiting.cancel)
            elif running := self._requests.get(request_id):
                self._drop(running)
                if running not in self._stepping:
                    self._tell(running.cancel)

    def take_busy(self) -> dict[str, float]:
        """GB-seconds of instances that tenants have kept busy since the last time (`ResourceUsage.gb_seconds`)."""
        with self._work:
            busy, self._busy = self._busy, defaultdict(float)
        return dict(busy)

    def take_served(self) -> dict[str, int]:
        """Tokens that tenants have been served since the last time."""
        with self._work:
            return self._scheduler.take_served()

    def served_elsewhere(self, tokens: Mapping[str, int]) -> None:
        """Other engines of the model have served these tokens to tenants: their shares here are less by that."""
        with self._work:
            self._scheduler.served_elsewhere(tokens)

    def close(self) -> None:
        """End running requests with an error and stop the thread, within `_CLOSE_SECONDS`."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():  # it waits for a function; it goes with the process
            log.warning("the engine's last step did not end within %s s", _CLOSE_SECONDS)

    def _check(self, request: GenerationRequest) -> None:
        held = self._memory.spec.tokens_within(self._memory.total)
        limits = {"the maximum context length is": self.max_model_len, "the KV cache holds": held}
        check_request(request, self._model.vocabulary, limits)

    def _add(self, running: RequestState) -> None:
        """Raises `EngineBusy`."""
        self._scheduler.add(running.sequence)
        self._requests[running.request.id] = running
        self._work.notify()

    def _compile(self, running: RequestState, grammar: str) -> None:
        """Have the grammar of a request compiled, after which it runs. Raises `RequestError` or `EngineBusy`."""
        if self._grammars is None:
            raise RequestError("this orchestrator compiles no grammars")
        self._grammars.compile(grammar, partial(self._compiled, running))
        self._compiling[running.request.id] = running

    def _compiled(self, running: RequestState, grammar: GrammarMatcher | Exception) -> None:
        """Let a request run whose grammar has been compiled, on the compiler's thread."""
        with self._work:
            if self._compiling.get(running.request.id) is not running:  # cancelled, or the engine has ended
                return
            del self._compiling[running.request.id]
            try:
                if isinstance(grammar, Exception):
                    raise grammar
                running.constrain(grammar)
                self._add(running)
            except FaasmoeError as error:
                self._tell(running.fail, client_message(error))
            except Exception as error:  # noqa: BLE001 - a defect ends this request alone
                log.error("a grammar could not be compiled: %s", type(error).__name__)
                self._tell(running.fail, client_message(error))

    def _run(self) -> None:
        message = ENDING
        try:
            with torch.inference_mode():
                while self._step():
                    pass
        except BaseException:  # nobody above would hear of it
            message = FAILED
            log.critical("the engine has failed", exc_info=True)
        with self._work:
            self._stopping = True
            requests, self._requests = self._requests | self._compiling, {}
            self._compiling = {}
            self._scheduler = Scheduler(self.options)  # whatever state the other one is in
            for running in self._stepping:  # cancelled in a step that did not end
                if requests.get(running.request.id) is not running:
                    self._tell(running.cancel)
            for running in requests.values():
                self._tell(running.fail, message)

    def _step(self) -> bool:
        """Wait for work and run one step of it. False when the engine is to stop."""
        with self._work:
            while not (self._stopping or self._requests):
                self._work.wait()
            if self._stopping:
                return False
            started, cpu = time.perf_counter(), time.process_time()
            batch = self._plan()
            waiting = self._scheduler.waiting
            self._stepping = batch.members
        planned = time.perf_counter()
        outcome = Attempts(self._forward, self._again, self._costs).run(batch, cpu)
        computed = time.perf_counter()
        with self._work:
            self._charge(outcome.bills)
            for running, error in outcome.failed:
                self._fail("step", running, error)
        charged = time.perf_counter()
        for part, logits in outcome.done:
            self._sample(part, logits)
        ended = time.perf_counter()
        if outcome.typical:
            self._scheduler.took(len(batch.tokens), batch.prompt_tokens, ended - started)
        self._report(
            StepStats(
                seconds=ended - started,
                phases={
                    "schedule": planned - started,
                    "forward": computed - planned,
                    "account": charged - computed,
                    "sample": ended - charged,
                },
                tokens=len(batch.tokens),
                prompt_tokens=batch.prompt_tokens,
                sequences=len(batch.work),
                waiting=waiting,
            )
        )
        return True

    def _plan(self) -> Batch:
        work = self._scheduler.next_step()
        if not work:
            raise RuntimeError(f"none of {len(self._requests)} requests can go on")  # a defect: the oldest can
        return Batch.of(work, (self._requests[w.sequence.id] for w in work))

    def _forward(self, batch: Batch) -> Tensor:
        # a step of prompt chunks alone needs no logits, but models must be asked for some
        return self._model.forward(batch.tokens, batch.positions, batch.spans, batch.wanted or [0])

    def _again(self, batch: Batch, members: Many[int]) -> Batch | None:
        """Some of a batch that has failed, without those who were cancelled meanwhile; None if all of them were."""
        with self._work:
            left = [i for i in members if self._runs(batch.members[i])]
            return batch.part(left) if left else None

    def _runs(self, running: RequestState) -> bool:
        """True if the request has neither ended nor been cancelled."""
        return self._requests.get(running.request.id) is running

    def _charge(self, bills: Many[Bill]) -> None:
        """Note what those who took part in the step have to pay, and tell those who were cancelled in it."""
        for bill in bills:
            bill.running.usage.add(bill.costs, bill.cpu_seconds)
            self._busy[bill.running.request.tenant] += float(bill.costs[GB_SECONDS])
        for running in self._stepping:
            if not self._runs(running):
                self._tell(running.cancel)
        self._stepping = []

    def _sample(self, batch: Batch, logits: Tensor) -> None:
        """Hand out logits `[len(batch.wanted), vocabulary]`. The lock is held for one request at a time."""
        with self._work:
            batch.advance()
            for running in batch.members:
                if self._runs(running):
                    self._memory.ran(running.sequence)
        finite = finite_rows(logits)
        for its in batch.logit_rows:
            running = its.running
            with self._work:
                if not self._runs(running):  # cancelled during the step
                    continue
                try:
                    before = running.sequence.generated
                    ended = running.advance(logits[its.usable(finite)])
                except Exception as error:  # noqa: BLE001 - a fault in one request's sampling ends that request
                    self._fail("sampling", running, error)
                    continue
                if its.drafted:
                    more = running.sequence.generated - before
                    self._scheduler.verified(running.sequence, its.drafted, more - 1)
                if ended:
                    self._drop(running)

    def _report(self, report: StepStats) -> None:
        if self._observer is None:
            return
        try:
            self._observer(report)
        except Exception as error:  # noqa: BLE001 - requests must not suffer from who counts them
            log.error("a step could not be reported: %s: %s", type(error).__name__, error)

    def _fail(self, what: str, running: RequestState, error: Exception) -> None:
        """End a request with an error, unless it has ended. Its KV cache may be wrong, and is not kept."""
        if not self._runs(running):
            return
        if isinstance(error, FaasmoeError):
            log.error("%s failed: %s: %s", what, type(error).__name__, error)
        else:  # its message may quote a tenant's text
            log.error("%s failed", what, exc_info=error)
        self._drop(running, keep=False)
        self._tell(running.fail, client_message(error))

    def _tell(self, how: Callable[..., None], *what: str) -> None:
        try:
            how(*what)
        except Exception:  # others have to be told as well
            log.exception("a listener failed")

    def _drop(self, running: RequestState, *, keep: bool = True) -> None:
        del self._requests[running.request.id]
        self._scheduler.remove(running.sequence, keep=keep)
