"""Compiles grammars beside the engine's steps, and keeps those that were used last."""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import partial

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.grammar.vocabulary import GrammarTokenizer, grammar_vocabulary
from faasmoe.errors import EngineBusy, RequestError, brief
from faasmoe.protocol.request import GRAMMAR_LIMITS

log = logging.getLogger(__name__)

_MOST_WAITING = 256  # requests; a grammar takes a millisecond as a rule
_KEPT = 16  # compiled grammars: one may come to 20 MB, if it is made to

Done = Callable[[GrammarMatcher | Exception], None]


class GrammarCompiler:
    """A thread that compiles grammars for one tokenizer. It starts with the first grammar."""

    def __init__(self, tokenizer: GrammarTokenizer, vocabulary: int, ends: Collection[int]) -> None:
        """`vocabulary` is the number of logits, and `ends` are the tokens that end a text."""
        self._size = vocabulary
        self._make_tokens = partial(grammar_vocabulary, tokenizer, vocabulary, ends)
        self._can = any(end < vocabulary for end in ends)
        self._tokens: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._orders: queue.Queue[tuple[str, Done]] = queue.Queue(_MOST_WAITING)
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def compile(self, grammar: str, done: Done) -> None:
        """`done` gets the beginning of `grammar`, or why there is none, on the compiler's thread.

        Raises `EngineBusy` if too many wait, and `RequestError` if the model has no token that ends a text.
        """
        if not self._can:
            raise RequestError(
                "the model has no token that ends a text, so that no response can be held to a schema"
            )
        try:
            self._orders.put_nowait((grammar, done))
        except queue.Full:
            raise EngineBusy(
                f"{_MOST_WAITING} schemas and grammars wait already; try later", retry_after=1
            ) from None
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            grammar, done = self._orders.get()
            try:
                done(self._begin(grammar))
            except Exception as error:  # noqa: BLE001 - the next request wants its grammar, too
                self._refuse(done, error)

    def _refuse(self, done: Done, error: Exception) -> None:
        try:
            done(error)
        except Exception:
            log.exception("a request could not be told that its grammar is refused")

    def _begin(self, grammar: str) -> GrammarMatcher:
        """The place before the first token. Raises `RequestError`."""
        compiled = self._compiled.get(grammar)
        if compiled is None:
            compiled = self._compile(grammar)
            self._compiled[grammar] = compiled
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        return GrammarMatcher(compiled.deep_copy(), self._size)

    def _compile(self, grammar: str) -> LLMatcher:
        if self._tokens is None:
            self._tokens = self._make_tokens()
        compiled = LLMatcher(self._tokens, grammar, log_level=0, limits=LLParserLimits(**GRAMMAR_LIMITS))
        if compiled.is_error():
            cause = brief(ValueError(compiled.get_error()))
            raise RequestError(f"the schema or grammar cannot be compiled: {cause}")
        return compiled
