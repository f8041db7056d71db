"""Log-probabilities of tokens.

Log-probabilities are those of the model's own distribution, the log-softmax of its logits, before temperature, biases,
penalties and cuts.
"""

from __future__ import annotations

from torch import Tensor

from faasmoe.engine.output.detokenizer import Decoder
from faasmoe.protocol.request import ScoredToken, TokenLogprob

_LEAST = -9999.0  # stands for impossible: JSON has no infinity, and OpenAI's API writes this


class Scorer:
    """Log-probabilities of chosen tokens beside those of the `top` likeliest."""

    def __init__(self, tokenizer: Decoder, top: int) -> None:
        self._tokenizer = tokenizer
        self._top = top

    def score(self, logits: Tensor, token: int, offset: int) -> TokenLogprob:
        """`token` in the place that `logits` `[vocabulary]` float32 predict, `offset` characters into the text."""
        total = float(logits.logsumexp(-1))
        values, tokens = logits.topk(min(self._top, len(logits)))
        top = zip(tokens.tolist(), values.tolist(), strict=True)
        return TokenLogprob(
            self._candidate(token, float(logits[token]) - total),
            tuple(self._candidate(other, value - total) for other, value in top),
            offset,
        )

    def unpredicted(self, token: int) -> TokenLogprob:
        """The first token of a prompt, which nothing comes before."""
        return TokenLogprob(ScoredToken(token, self._tokenizer.token_bytes(token), None), (), 0)

    def _candidate(self, token: int, logprob: float) -> ScoredToken:
        return ScoredToken(token, self._tokenizer.token_bytes(token), max(logprob, _LEAST))
