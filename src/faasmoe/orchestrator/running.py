"""A request while the engine has it: from logits to tokens to pieces of text."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many

from torch import Tensor

from faasmoe.orchestrator.request import GenerationRequest, Piece
from faasmoe.orchestrator.sampler import Sampler
from faasmoe.orchestrator.scheduler import Work
from faasmoe.orchestrator.sequence import Sequence
from faasmoe.orchestrator.text import Decoder, TextStream

_CONTEXT_TOKENS = 5  # of the prompt, for the decoder: enough for a character of any script

Listener = Callable[[Piece], None]


class Running:
    """Everything that belongs to a request in the engine. For the engine's thread."""

    def __init__(
        self, request: GenerationRequest, listener: Listener, tokenizer: Decoder, end_tokens: frozenset[int]
    ) -> None:
        """`listener` is called on the engine's thread and must not block."""
        self.request = request
        self.sequence = Sequence(request)
        self._listener = listener
        self._end_tokens = end_tokens
        self._sampler = Sampler(request.params)
        self._text = TextStream(tokenizer, request.params.stop, request.prompt[-_CONTEXT_TOKENS:])

    def wanted(self, work: Work) -> Many[int]:
        """For which of the step's tokens of this sequence logits are needed: offsets below `work.count`."""
        return (work.count - 1,) if work.completes else ()

    def advance(self, logits: Tensor) -> bool:
        """Take the logits that were wanted, `[n, vocabulary]` float32, n > 0. Returns whether the request has ended."""
        token = self._sampler.pick(logits[-1])
        self.sequence.tokens.append(token)
        text = self._text
        ended = token in self._end_tokens
        shown = "" if ended else text.push(token)
        reason = None
        if ended or text.stopped:
            reason = "stop"
        elif self.sequence.generated == self.request.params.max_tokens:
            reason = "length"
        if reason:
            shown += text.flush()
            reason = "stop" if text.stopped else reason
        if shown or reason:
            self._listener(Piece(shown, self.sequence.generated, reason))
        return reason is not None

    def fail(self, message: str) -> None:
        """Tell the listener that nothing more will come."""
        self._listener(Piece("", self.sequence.generated, error=message))
