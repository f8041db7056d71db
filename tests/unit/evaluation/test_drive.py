from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import pytest

from faasmoe.errors import EngineBusy
from faasmoe.evaluation.drive import drive
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.protocol.request import GenerationRequest, Piece


class Played:
    """A serving whose engine answers at once, unless it is full."""

    def __init__(self, full: int = 100) -> None:
        self.requests: list[GenerationRequest] = []
        self.engine = SimpleNamespace(submit=self.submit)
        self.tokenizer = SimpleNamespace(encode=lambda text: [ord(c) for c in text])
        self.plan = SimpleNamespace(architecture=SimpleNamespace(text_config=SimpleNamespace(vocab_size=50)))
        self._full = full

    def submit(self, request: GenerationRequest, listener) -> None:
        if len(self.requests) == self._full:
            raise EngineBusy("too many")
        self.requests.append(request)
        for n in range(1, request.params.max_tokens + 1):
            listener(Piece("x", n, "length" if n == request.params.max_tokens else None))


def test_a_closed_loop_asks_each_tenants_next_when_it_has_its_answer() -> None:
    played = Played()
    asks = [Ask(None, tenant, f"{tenant}{n}", 2) for n in range(3) for tenant in "ab"]
    outcomes = drive(asks, played)
    assert [o.tenant for o in outcomes].count("a") == 3
    for tenant in "ab":
        its = [o for o in outcomes if o.tenant == tenant]
        assert all(before.end <= after.asked for before, after in pairwise(its))
        asked = [r.prompt for r in played.requests if r.tenant == tenant]
        assert asked == [tuple(map(ord, f"{tenant}{n}")) for n in range(3)]
    assert all(o.tokens == 2 and o.error is None for o in outcomes)


def test_timed_requests_are_asked_in_time_and_keep_to_their_lengths() -> None:
    played = Played()
    outcomes = drive([Ask(0.0, "a", 30, 1), Ask(0.05, "b", 5, 3)], played)
    assert [(o.asked, o.prompt_tokens, o.tokens) for o in outcomes] == [(0.0, 30, 1), (0.05, 5, 3)]
    assert outcomes[1].first >= 0.05
    assert outcomes[1].end >= outcomes[1].first >= outcomes[1].asked
    assert outcomes[1].end_to_end == outcomes[1].end - outcomes[1].asked
    assert len(played.requests[0].prompt) == 30
    assert max(played.requests[0].prompt) < 50
    assert all(request.params.ignore_eos for request in played.requests)


def test_what_is_refused_is_an_outcome() -> None:
    outcomes = drive([Ask(None, "a", "x", 1), Ask(None, "a", "y", 1)], Played(full=1))
    assert [o.error for o in outcomes] == [None, "EngineBusy: too many"]
    assert math.isnan(outcomes[1].end)


def test_seeds_are_fixed() -> None:
    first, second = Played(), Played()
    for played in (first, second):
        drive([Ask(0.0, "a", 7, 1)], played)
    assert first.requests == second.requests
    assert first.requests[0].params.seed == pytest.approx(0)
