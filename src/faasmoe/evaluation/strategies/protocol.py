"""Messages to and from the process in which a strategy runs: a line of JSON each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.experts import PRELOAD
from faasmoe.platforms import DEFAULT
from faasmoe.platforms.base import Platform
from faasmoe.platforms.registry import find, start

if TYPE_CHECKING:
    from faasmoe.evaluation.drive import Outcome


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The first thing said: which strategy, and how. Sizes in bytes, times in seconds; None: the default."""

    strategy: str
    model: str  # folder
    tenants: tuple[str, ...]
    block_size: int | None = None
    keep_alive: float | None = None
    memory_budget: int | None = None
    dtype: str = "auto"
    memory_limit: int | None = None  # bytes for everything, page cache included; the memory budget follows from it
    pool: str | None = None  # address of a pool of functions that runs already
    artifacts: str | None = None  # folder for what its functions are made of; everybody on a pool has the same
    group: str | None = None  # folder of the control group to join
    platform: str = DEFAULT  # name
    platform_option: tuple[str, ...] = ()  # the platform's own options, NAME=VALUE each

    def start_platform(self, **options: object) -> Platform:
        """A pool of functions of its own; `options` take precedence. Raises `OptionError` or `PlatformError`."""
        own = find(self.platform).read(self.platform_option)
        ordered = {"keep_alive": self.keep_alive, "memory_budget": self.memory_budget} | options
        given = {name: value for name, value in ordered.items() if value is not None}
        return start(self.platform, PRELOAD, **given, **own)


class StrategyReady(msgspec.Struct, frozen=True):
    """The answer when it can play; with an error, that it cannot."""

    error: str | None = None


class Play(msgspec.Struct, frozen=True):
    """A workload to play."""

    asks: tuple[Ask, ...]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Instants are seconds after the workload's start; None: it did not get there."""

    tenant: str
    asked: float
    first: float | None
    end: float | None
    prompt_tokens: int
    tokens: int
    error: str | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> Answered:
        """The outcome of a request, with None for NaN, which JSON does not have."""
        first, end = (None if math.isnan(instant) else instant for instant in (outcome.first, outcome.end))
        return cls(
            tenant=outcome.tenant,
            asked=outcome.asked,
            first=first,
            end=end,
            prompt_tokens=outcome.prompt_tokens,
            tokens=outcome.tokens,
            error=outcome.error,
        )


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a workload."""

    requests: tuple[Answered, ...]
    invocations: int = 0
    cold_starts: int = 0
    steps: int = 0  # of the engine
    phases: dict[str, float] = {}  # part of a step to its seconds in all of these steps
    cold_start_phases: dict[str, tuple[int, float]] = {}  # of instances so far: how many, and seconds of all
    instances: int = 0  # that are there now
