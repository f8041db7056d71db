"""Pick the next token from logits.

The rules and their order are vLLM's (`vllm/v1/sample/sampler.py`): `logit_bias`, then penalties, are applied to the
logits, and tokens that a grammar does not allow are left out; with temperature 0 the largest wins; else logits are
divided by the temperature, `min_p`, `top_k` and `top_p` leave some tokens out, and one is drawn from what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from faasmoe.engine.grammar.matcher import GrammarMatcher
from faasmoe.engine.output.largest import largest
from faasmoe.engine.output.thinking import ThinkingLimit
from faasmoe.protocol.request import SamplingParams

_GREEDY_BELOW = 1e-5  # temperature, as in vLLM: float32 cannot tell the rest from 0
_FIRST_NUCLEUS = 64  # tokens that are tried first for `top_p`
_NUCLEUS_GROWTH = 16


class Sampler:
    """One sequence's source of tokens. The same seed and logits give the same tokens."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int] = ()) -> None:
        self._params = params
        self._grammar: GrammarMatcher | None = None
        self._thinking = ThinkingLimit(params.thinking) if params.thinking else None
        self.finished = False  # the grammar allows nothing more
        self._greedy = params.temperature < _GREEDY_BELOW
        self._bias = _Bias(params.logit_bias) if params.logit_bias else None
        self._penalties = _Penalties(params, prompt) if _penalised(params) else None
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def constrain(self, grammar: GrammarMatcher) -> None:
        """From the first token on, pick those that `grammar` allows."""
        self._grammar = grammar

    def pick(self, logits: Tensor) -> int:
        """A token id for `logits` `[vocabulary]` float32, which stay as they are.

        Raises `RequestError` if the grammar is too complex to go on.
        """
        forced = self._thinking.forced() if self._thinking else None
        if forced is not None:
            token = forced
        elif self._greedy:
            token = largest(self._adjusted(logits)[None])[0][0]
        else:
            tokens, probabilities = self.distribution(logits)
            drawn = self._draw(probabilities)
            token = drawn if tokens is None else int(tokens[drawn])
        if self._penalties:
            self._penalties.note(token)
        if self._thinking:
            self._thinking.note(token)
        if self._grammar:
            self.finished = self._grammar.take(token)
        return token

    def distribution(self, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        """The candidates: token ids `[n]` (None: all) and their probabilities `[n]`, at a temperature above 0."""
        params = self._params
        scores = self._adjusted(logits)
        scores = (scores - scores.max()) / params.temperature  # at most 0, so that nothing overflows
        tokens: Tensor | None = None
        if params.min_p > 0:
            tokens = (scores >= math.log(params.min_p)).nonzero().squeeze(1)
            scores = scores[tokens]
        if 0 < params.top_k < len(scores):
            scores, kept = scores.topk(params.top_k)
            tokens = kept if tokens is None else tokens[kept]
        if params.top_p < 1:
            scores, kept = _nucleus(scores, params.top_p)
            tokens = kept if tokens is None else tokens[kept]
        return tokens, torch.softmax(scores, -1)

    def _draw(self, probabilities: Tensor) -> int:
        """A place in `probabilities` `[n]`, by inversion: one random number, where `multinomial` takes one a token."""
        below = probabilities.cumsum(-1, dtype=torch.float64)
        at = torch.rand((), generator=self._generator, dtype=torch.float64) * below[-1]
        return min(int(torch.searchsorted(below, at, right=True)), len(below) - 1)

    def _adjusted(self, logits: Tensor) -> Tensor:
        if self._bias or self._penalties:
            logits = logits.clone()
        if self._bias:
            self._bias.apply(logits)
        if self._penalties:
            self._penalties.apply(logits)
        if self._grammar:
            logits = self._grammar.masked(logits)
        return logits


def _nucleus(scores: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Scores and places of the fewest most likely tokens that reach `top_p` together (Holtzman et al. 2019).

    A nucleus is small as a rule, so the likeliest few are tried before more are sorted.
    """
    total = scores.logsumexp(-1)
    count = min(_FIRST_NUCLEUS, len(scores))
    while True:
        ordered, places = scores.topk(count)
        probabilities = (ordered - total).exp()
        reached = probabilities.cumsum(-1)
        if count == len(scores) or reached[-1] >= top_p:
            kept = max(1, int((reached - probabilities < top_p).sum()))  # 1 where float32 takes `top_p` for 0
            return ordered[:kept], places[:kept]
        count = min(count * _NUCLEUS_GROWTH, len(scores))


class _Bias:
    """OpenAI's `logit_bias`: added to the logits of single tokens."""

    def __init__(self, bias: Sequence[tuple[int, float]]) -> None:
        self._tokens = torch.tensor([token for token, _ in bias])
        self._values = torch.tensor([value for _, value in bias], dtype=torch.float32)

    def apply(self, logits: Tensor) -> None:
        logits[self._tokens] += self._values


def _penalised(params: SamplingParams) -> bool:
    return bool(params.presence_penalty or params.frequency_penalty or params.repetition_penalty != 1)


class _Penalties:
    """Makes tokens less likely that have been there.

    `repetition_penalty` (Keskar et al. 2019) divides positive logits and multiplies negative ones of every token of
    prompt and completion. `frequency_penalty`, times how often the token has been picked, and `presence_penalty`, once
    it has been, are subtracted (OpenAI's API reference); the prompt does not count for these two.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self._params = params
        seen = sorted(set(prompt)) if params.repetition_penalty != 1 else []
        self._size = len(seen)
        self._tokens = torch.zeros(max(64, 2 * len(seen)), dtype=torch.int64)
        self._tokens[: self._size] = torch.tensor(seen, dtype=torch.int64)
        self._picked = torch.zeros(len(self._tokens))  # how often; 0 for those only in the prompt
        self._place = {token: place for place, token in enumerate(seen)}

    def note(self, token: int) -> None:
        """Count a picked token."""
        place = self._place.setdefault(token, self._size)
        if place == self._size:
            self._size += 1
            if self._size > len(self._tokens):
                self._tokens = torch.cat([self._tokens, torch.zeros_like(self._tokens)])
                self._picked = torch.cat([self._picked, torch.zeros_like(self._picked)])
            self._tokens[place] = token
        self._picked[place] += 1

    def apply(self, logits: Tensor) -> None:
        """Lower `logits` `[vocabulary]` in place."""
        tokens, picked = self._tokens[: self._size], self._picked[: self._size]
        repetition = self._params.repetition_penalty
        values = logits[tokens]
        values = torch.where(values > 0, values / repetition, values * repetition)
        values -= self._params.frequency_penalty * picked + self._params.presence_penalty * (picked > 0)
        logits[tokens] = values
