"""Which of the orchestrators that serve all tenants gets a request.

An orchestrator keeps the state of prompts that it has run (`engine.kv.prefix_cache`), so a prompt that begins like one
of these costs it less. On the other hand it may have more to do than others. The orchestrator is chosen for which both
come to the least: the tokens of the prompt that it has to compute, and the requests that it runs, counted in tokens.
SGLang's and vLLM's routers weigh the same two (https://docs.vllm.ai/projects/production-stack, "prefix-aware routing").
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise

BLOCK_TOKENS = 64  # in which beginnings of prompts are compared
REQUEST_TOKENS = 256  # of a prompt, which take about as long as a running request delays others
MOST_BLOCKS = 1 << 16  # that are remembered: 4 million tokens

_DIGEST_BYTES = 16


class PrefixRouter:
    """Remembers which orchestrators have run which beginnings of prompts. A plain data structure."""

    def __init__(self) -> None:
        self._holders: OrderedDict[bytes, set[str]] = OrderedDict()  # by digest; least recently used first

    def choose(self, tenant: str, prompt: Sequence[int], requests: Mapping[str, int]) -> str:
        """The orchestrator for a prompt of `tenant`, of those in `requests`, which has how many each runs.

        It is taken to have run the prompt from now on. The first in `requests` is chosen among equals.
        """
        digests = list(_digests(tenant, prompt))
        cached = self._cached(digests, requests)
        costs = {name: REQUEST_TOKENS * n - BLOCK_TOKENS * cached[name] for name, n in requests.items()}
        chosen = min(costs, key=costs.__getitem__)
        for digest in digests:
            self._holders.setdefault(digest, set()).add(chosen)
            self._holders.move_to_end(digest)
        while len(self._holders) > MOST_BLOCKS:
            self._holders.popitem(last=False)
        return chosen

    def forget(self, orchestrator: str) -> None:
        """An orchestrator has ended, and its prefix cache with it."""
        for digest, holders in list(self._holders.items()):
            holders.discard(orchestrator)
            if not holders:
                del self._holders[digest]

    def _cached(self, digests: Sequence[bytes], names: Mapping[str, int]) -> dict[str, int]:
        """How many blocks from the beginning on each orchestrator has run."""
        cached = dict.fromkeys(names, 0)
        holding = set(names)
        for digest in digests:
            holding &= self._holders.get(digest, set())
            if not holding:
                break
            for name in holding:
                cached[name] += 1
        return cached


def _digests(tenant: str, prompt: Sequence[int]) -> Iterator[bytes]:
    """One for each whole block: of the tenant, whose prefixes are its own, and of all tokens up to the block's end."""
    digest = blake2b(tenant.encode(), digest_size=_DIGEST_BYTES).digest()
    for begin, end in pairwise(range(0, len(prompt) + 1, BLOCK_TOKENS)):
        tokens = array("q", prompt[begin:end]).tobytes()
        digest = blake2b(tokens, digest_size=_DIGEST_BYTES, key=digest).digest()
        yield digest
