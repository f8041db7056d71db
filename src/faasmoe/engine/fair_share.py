"""Whose turn it is: weighted fairness between tenants, counted in tokens.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996): serving n tokens moves a tenant's start tag on by
n / weight, the least tag is served first, and virtual time is the largest tag served so far. A tenant that had
nothing left to serve starts again at virtual time, so idling earns nothing. With tokens as the cost it is the
virtual token counter of Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024).
"""

from __future__ import annotations

import math

from faasmoe.errors import OptionError


class FairShare:
    """Start tags of tenants. A plain data structure."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}  # where it is not 1
        self._tags: dict[str, float] = {}
        self._now = 0.0  # virtual time
        self._served: dict[str, int] = {}  # tokens of tenants, not taken yet

    def set_weight(self, tenant: str, weight: float) -> None:
        """Give `tenant` `weight` times the tokens of a tenant of weight 1, from now on.

        Raises `OptionError` if `weight` is not a positive number.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise OptionError(f"weight of tenant {tenant!r} is {weight}: must be a positive number")
        self._weights[tenant] = weight

    def weight(self, tenant: str) -> float:
        """1 until set."""
        return self._weights.get(tenant, 1.0)

    def tag(self, tenant: str) -> float:
        """The virtual time at which it is served next."""
        return self._tags[tenant]

    def join(self, tenant: str) -> None:
        """`tenant` has work again."""
        self._tags[tenant] = max(self._tags.get(tenant, 0.0), self._now)

    def leave(self, tenant: str) -> None:
        """`tenant` has no more work. Its weight is forgotten; a start tag beyond virtual time is kept."""
        self._weights.pop(tenant, None)
        if self._tags.get(tenant, 0.0) <= self._now:
            self._tags.pop(tenant, None)

    def serve(self, tenant: str, tokens: int) -> None:
        """`tenant` was served `tokens`."""
        self._now = max(self._now, self._tags[tenant])
        self.charge(tenant, tokens)

    def charge(self, tenant: str, tokens: int) -> None:
        """Count `tokens` that `tenant` got beside those that it was served."""
        self._tags[tenant] += tokens / self.weight(tenant)
        self._served[tenant] = self._served.get(tenant, 0) + tokens

    def charge_elsewhere(self, tenant: str, tokens: int) -> None:
        """Count `tokens` that others than this object have served to `tenant`, if it has work here."""
        if tenant in self._tags:
            self._tags[tenant] += tokens / self.weight(tenant)

    def take_served(self) -> dict[str, int]:
        """Tokens that tenants were served or charged since the last time."""
        served, self._served = self._served, {}
        return served

    def refund(self, tenant: str, tokens: int) -> None:
        """Take back `tokens` that `tenant` was not served after all."""
        self._tags[tenant] -= tokens / self.weight(tenant)
        self._served[tenant] = self._served.get(tenant, 0) - tokens
