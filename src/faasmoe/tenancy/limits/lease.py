"""What a request that runs may use of its tenant's limits. Plain data structures for one thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from faasmoe.tenancy.limits.sliding_window import SlidingWindow

SOON = 1.0  # seconds after which to ask again, where it hangs on when others' requests end


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a request wants."""

    prompt_tokens: int
    answers: int  # that it has, together
    most: int  # tokens of each answer
    stated: bool = True  # the client has said so; else it is what the context has room for

    def tokens(self, each: int) -> int:
        """All of them, if answers have `each`."""
        return self.prompt_tokens + self.answers * each


class LeaseMeter:
    """What one tenant has running, and had in the last minute."""

    def __init__(self) -> None:
        self.running = 0
        self.reserved = (
            0  # tokens that requests may still generate, and those of bodies that are not understood yet
        )
        self.held_prompts = 0  # tokens of requests that are not in the ledger yet
        self.held_answers = 0  # and those that they may have, generated or not
        self.requests = SlidingWindow()
        self.tokens = SlidingWindow()

    def left(self, limit: int, now: float) -> float:
        """How many tokens of a limit may be used now."""
        return limit - self.tokens.total(now) - self.reserved

    def wait(self, tokens: int, limit: int, now: float) -> float:
        """Seconds until so many may be, if nobody else takes them."""
        wait = self.tokens.wait(tokens, limit, now)
        return max(SOON, wait) if self.reserved else wait


class Lease:
    """What a request that runs may use, until `end`. `most` is how many tokens each of its answers may have."""

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
        """So many more tokens have been generated."""
        if not self._running or tokens <= 0:
            return
        foreseen = min(tokens, self._reserved)
        self._reserved -= foreseen
        self._meter.reserved -= foreseen
        self._meter.tokens.add(tokens, self._clock())

    def end(self) -> None:
        """What was not generated is there for others. May be called twice.

        Not before what was used is counted as spent: in between, it would be there for others too.
        """
        if self._running:
            self._running = False
            self._meter.reserved -= self._reserved
            self._meter.held_prompts -= self._prompts
            self._meter.held_answers -= self._answers

    def cancel(self) -> None:
        """It was not run after all, and its tokens count for nothing."""
        if self._running:
            self.end()
            self._meter.tokens.take_back(self._prompts, self._begun)
