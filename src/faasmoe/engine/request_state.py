"""A request while the engine has it: from logits to tokens to pieces of text."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

from torch import Tensor

from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.output.detokenizer import Decoder, Detokenizer
from faasmoe.engine.output.echo import Echo
from faasmoe.engine.output.logprobs import Scorer
from faasmoe.engine.output.sampler import Sampler
from faasmoe.engine.sequence import Sequence
from faasmoe.engine.step import ScheduledTokens
from faasmoe.engine.usage import RequestUsage
from faasmoe.protocol.request import GenerationRequest, Piece, TokenLogprob

_CONTEXT_TOKENS = 5  # of the prompt, for the decoder: enough for a character of any script

Listener = Callable[[Piece], None]


class RequestState:
    """Everything that belongs to a request in the engine. For the engine's thread.

    Each step calls `wanted` and then `advance`, which `wanted` prepares. A sequence may lose its cache and start anew
    (`sequence.computed` is 0 again) between two steps; what it has said stays said.
    """

    def __init__(
        self,
        request: GenerationRequest,
        listener: Listener,
        tokenizer: Decoder,
        end_tokens: frozenset[int],
        *,
        speculates: bool = False,
    ) -> None:
        """`listener` is called on the engine's thread and must not block. `speculates`: see `Sequence`."""
        params = request.params
        self.request = request
        self.sequence = Sequence(request, speculates=speculates)
        self.usage = RequestUsage()
        self._listener = listener
        self._end_tokens = frozenset[int]() if params.ignore_eos else end_tokens
        self._sampler = Sampler(params, request.prompt)
        self._text = Detokenizer(
            tokenizer,
            params.stop,
            request.prompt[-_CONTEXT_TOKENS:],
            skip_special_tokens=params.skip_special_tokens,
        )
        self._scorer = None if params.logprobs is None else Scorer(tokenizer, params.logprobs)
        self._echo = Echo(request.prompt, tokenizer, self._scorer) if params.echo else None  # until it is out
        self._echoed = 0  # characters of the prompt in the answer
        self._of_prompt = 0  # wanted logits for tokens of the prompt; those behind them are for the next tokens
        self._draft: tuple[int, ...] = ()  # whose logits are wanted
        self._scores: list[TokenLogprob] = []  # of tokens since the last piece

    def wanted(self, work: ScheduledTokens) -> Many[int]:
        """Offsets, below `work.count`, of the step's tokens of this sequence whose logits are needed."""
        prompt = self._echo.wanted(work.sequence.computed, work.count) if self._echo else ()
        self._of_prompt, self._draft = len(prompt), work.draft
        return [*prompt, *range(work.certain - 1, work.count)] if work.completes else prompt

    def advance(self, logits: Tensor) -> bool:
        """Take the logits that were wanted, `[n, vocabulary]` float32, n > 0. Returns whether the request has ended.

        Those of a draft's last tokens may be missing.
        """
        with self.usage:
            of_prompt = self._of_prompt
            if self._echo and of_prompt:
                self._echo.take(logits[:of_prompt])
            return len(logits) > of_prompt and self._next(logits[of_prompt:])

    def constrain(self, grammar: GrammarMatcher) -> None:
        """Hold the response to `grammar`. Called before the first step."""
        self._sampler.constrain(grammar)

    def fail(self, message: str) -> None:
        """Tell the listener that nothing more will come."""
        self._tell("", error=message)

    def cancel(self) -> None:
        """Send the last piece of a cancelled request, with its usage."""
        self._scores.clear()
        self._tell("", "cancelled")

    def _tell(self, text: str, reason: str | None = None, error: str | None = None) -> None:
        its, scores = self.sequence, tuple(self._scores)
        self._scores.clear()
        used = self.usage.read() if reason or error is not None else None
        self._listener(
            Piece(
                text,
                its.generated,
                reason,
                stop=self._text.stop if reason else None,
                error=error,
                logprobs=scores,
                cached_tokens=its.cached_tokens,
                queue_seconds=its.queue_seconds,
                used=used,
            )
        )

    def _next(self, logits: Tensor) -> bool:
        """Pick the next tokens and send the text that is certain. Returns True if the last of them was the request's.

        `logits` `[n, vocabulary]` are those of the last token and of a draft behind it, of which each counts as long
        as the tokens before it are those that have been picked.
        """
        shown = self._opening()
        reason: str | None = "length"
        if self.request.params.max_tokens > 0:  # 0: only the prompt was asked for
            for row, guess in zip(logits, (*self._draft, None), strict=False):
                more, reason = self._pick(row)
                shown += more
                if reason or self.sequence.tokens[-1] != guess:
                    break
            if self._draft:
                self.sequence.settle()
        if shown or reason:
            self._tell(shown, reason)
        return reason is not None

    def _opening(self) -> str:
        """The prompt, if it is to be echoed and has not been."""
        if not self._echo:
            return ""
        text, self._scores = self._echo.finish()
        self._echo, self._echoed = None, len(text)
        return text

    def _pick(self, logits: Tensor) -> tuple[str, str | None]:
        """Text that has become certain with the next token, and why it is the last, if it is."""
        text = self._text
        token = self._sampler.pick(logits)
        if self._scorer:
            self._scores.append(self._scorer.score(logits, token, self._echoed + text.length))
        self.sequence.append(token)
        ended = token in self._end_tokens
        shown = "" if ended else text.push(token)
        reason = None
        if ended or text.stopped or self._sampler.finished:
            reason = "stop"
        elif self.sequence.generated == self.request.params.max_tokens:
            reason = "length"
        if reason:
            shown += text.flush()
            reason = "stop" if text.stopped else reason
        return shown, reason
