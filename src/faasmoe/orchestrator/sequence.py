"""One request while it runs."""

from __future__ import annotations

from faasmoe.orchestrator.kv_cache import KVCache
from faasmoe.orchestrator.request import GenerationRequest


class Sequence:
    """Tokens of a request, prompt first, and how many of them the model has seen."""

    def __init__(self, request: GenerationRequest) -> None:
        self.id = request.id
        self.tokens = list(request.prompt)
        self.prompt_length = len(request.prompt)
        self.computed = 0  # tokens whose keys and values are in the cache
        self.cache = KVCache()

    @property
    def pending(self) -> int:
        """Tokens that the model has not seen yet: the rest of the prompt, or the last token."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Tokens picked so far."""
        return len(self.tokens) - self.prompt_length
