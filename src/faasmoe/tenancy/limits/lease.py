"""Leases: shares of a tenant's limits held by running requests. Plain data structures for one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.tenancy.limits.sliding_window import SlidingWindow

SOON = 1.0  # seconds after which to ask again, where it hangs on when others' requests end


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """The tokens that a request may need."""

    prompt_tokens: int
    answers: int  # that it has, together
    most: int  # tokens of each answer
    stated: bool = True  # the client has said so; else it is what the context has room for

    def tokens(self, each: int) -> int:
        """Tokens of the prompt and of all choices, if each choice has `each`."""
        return self.prompt_tokens + self.answers * each


class LeaseMeter:
    """The running requests of one tenant, and its usage of the last minute."""

    def __init__(self) -> None:
        self.running = 0
        self.reserved = 0  # tokens that requests may still generate, and those of bodies that are not parsed yet
        self.held_prompts = 0  # tokens of requests that are not in the ledger yet
        self.held_answers = 0  # and those that they may have, generated or not
        self.requests = SlidingWindow()
        self.tokens = SlidingWindow()

    def left(self, limit: int, now: float) -> float:
        """Tokens of a limit that may be used now."""
        return limit - self.tokens.total(now) - self.reserved

    def wait(self, tokens: int, limit: int, now: float) -> float:
        """Seconds until so many may be, if nobody else takes them."""
        wait = self.tokens.wait(tokens, limit, now)
        return max(SOON, wait) if self.reserved else wait


class Lease:
    """The share of a limit that a running request holds until `end`. `most`: tokens that each choice may have."""

    def __init__(
        self, meter: LeaseMeter, clock: Callable[[], float], now: float, ask: LeaseRequest, most: int
    ) -> None:
        self.most = most
        self._meter = meter
        self._clock = clock
        self._begun = now
        self._prompts = ask.prompt_tokens
        self._answers = self._reserved = ask.answers * most
        self._running = True
        meter.reserved += self._reserved
        meter.held_prompts += self._prompts
        meter.held_answers += self._answers
        meter.tokens.add(self._prompts, now)

    def generated(self, tokens: int) -> None:
        """Count `tokens` more generated tokens."""
        if not self._running or tokens <= 0:
            return
        foreseen = min(tokens, self._reserved)
        self._reserved -= foreseen
        self._meter.reserved -= foreseen
        self._meter.tokens.add(tokens, self._clock())

    def end(self) -> None:
        """Release the tokens that were not generated. May be called twice.

        Not before what was used is counted as spent: in between, it would be there for others too.
        """
        if self._running:
            self._running = False
            self._meter.reserved -= self._reserved
            self._meter.held_prompts -= self._prompts
            self._meter.held_answers -= self._answers

    def cancel(self) -> None:
        """Release the lease of a request that did not run; none of its tokens count."""
        if self._running:
            self.end()
            self._meter.tokens.take_back(self._prompts, self._begun)
