"""The project's own engine: with experts in its process (`shared-full`), or as functions (`faasmoe-shared`)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from faasmoe.evaluation.drive import Outcome, drive
from faasmoe.evaluation.strategies.protocol import Answered, Orders, Played
from faasmoe.evaluation.strategies.registry import SHARED_FULL, Player
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.model.plan import context_length, make_plan
from faasmoe.model.source import resolve
from faasmoe.orchestrator.pool import local_platform
from faasmoe.orchestrator.serving import Serving
from faasmoe.platforms.base import Platform
from faasmoe.platforms.inline.platform import InlinePlatform
from faasmoe.platforms.local.options import LocalOptions


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """What plays workloads while it is entered. Raises what loading a model raises."""
    plan = make_plan(resolve(orders.model), orders.block_size, orders.dtype)
    whole = orders.strategy == SHARED_FULL

    def platform() -> Platform:
        return InlinePlatform() if whole else local_platform(LocalOptions(orders.keep_alive, orders.memory_budget))

    with Serving(plan, platform, context_length(plan, None)) as serving:

        def play(asks: Sequence[Ask]) -> Played:
            counts = serving.dispatch.counts
            invocations, cold_starts = counts.invocations, counts.cold_starts
            requests = tuple(map(_answered, drive(asks, serving)))
            if whole:  # nothing is invoked
                return Played(requests)
            return Played(requests, counts.invocations - invocations, counts.cold_starts - cold_starts)

        yield play


def _answered(outcome: Outcome) -> Answered:
    first, end = (None if math.isnan(instant) else instant for instant in (outcome.first, outcome.end))
    return Answered(
        outcome.tenant, outcome.asked, first, end, outcome.prompt_tokens, outcome.tokens, outcome.error
    )
