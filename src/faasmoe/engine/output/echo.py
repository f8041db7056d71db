"""The prompt as the beginning of the answer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from faasmoe.engine.output.detokenizer import Decoder, Detokenizer
from faasmoe.engine.output.logprobs import Scorer
from faasmoe.protocol.request import TokenLogprob


class Echo:
    """A prompt's text and, with a `scorer`, its tokens' log-probabilities.

    Those need the logits of every token of the prompt but the last: each predicts the token after it.
    """

    def __init__(self, prompt: Sequence[int], tokenizer: Decoder, scorer: Scorer | None) -> None:
        """`prompt` has one token at least."""
        self._prompt = prompt
        self._tokenizer = tokenizer
        self._scorer = scorer
        self._stream = Detokenizer(tokenizer)
        self._texts: list[str] = []
        self._scores: list[TokenLogprob] = []
        if scorer:
            self._add(scorer.unpredicted(prompt[0]))

    def wanted(self, start: int, count: int) -> range:
        """Offsets, below `count`, of the tokens from place `start` on whose logits `take` needs.

        None for which it had them already, should the model have to see tokens again.
        """
        if not self._scorer:
            return range(0)
        return range(max(0, len(self._scores) - 1 - start), min(count, len(self._prompt) - 1 - start))

    def take(self, logits: Tensor) -> None:
        """The logits that were wanted, `[n, vocabulary]` float32."""
        if not self._scorer:
            return  # nothing was
        for row in logits:
            token = self._prompt[len(self._scores)]
            self._add(self._scorer.score(row, token, self._stream.length))

    def finish(self) -> tuple[str, list[TokenLogprob]]:
        """The whole text and, if they were asked for, log-probabilities of all its tokens."""
        if not self._scorer:
            return self._tokenizer.decode(self._prompt, skip_special_tokens=True), []
        return "".join(self._texts) + self._stream.flush(), self._scores

    def _add(self, score: TokenLogprob) -> None:
        self._scores.append(score)
        self._texts.append(self._stream.push(score.chosen.token))
