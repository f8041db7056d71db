"""Pick the next token from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from faasmoe.orchestrator.request import SamplingParams


class Sampler:
    """One sequence's source of tokens. The same seed and logits give the same tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def pick(self, logits: Tensor) -> int:
        """A token id for `logits` `[vocabulary]` float32."""
        if self._params.temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits / self._params.temperature, -1)
        if self._params.top_p < 1:
            probabilities = _nucleus(probabilities, self._params.top_p)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the fewest most likely tokens that reach `top_p` together (Holtzman et al. 2019)."""
    ordered, tokens = probabilities.sort(descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = torch.where(before < top_p, ordered, 0.0)
    return torch.zeros_like(probabilities).scatter_(0, tokens, kept)
