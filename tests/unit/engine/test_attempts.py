"""Steps that fail for one sequence's sake: on a model whose tokens depend on all that its caches hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from faasmoe.engine import attempts
from faasmoe.engine.attempts import Attempts, StepOutcome
from faasmoe.engine.batch import Batch
from faasmoe.engine.experts.costs import StepCosts
from faasmoe.engine.request_state import RequestState
from faasmoe.engine.sequence import Sequence as EngineSequence
from faasmoe.engine.speculation.speculator import Speculator
from faasmoe.engine.step import ScheduledTokens
from faasmoe.errors import DeadlineExceeded, FunctionError
from faasmoe.protocol.request import GenerationRequest, SamplingParams
from tests.unit.engine.experts.parts import part, replies, reply
from tests.unit.engine.harm import (
    VOCABULARY,
    Case,
    Letters,
    Model,
    Summing,
    after,
)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("kind", [Model, Summing])
def test_only_those_fail_who_do_harm_and_all_others_get_their_tokens(seed: int, kind: type[Model]) -> None:
    case = Case(random.Random(seed), kind())
    for name in range(12):
        case.ask(name)
    case.assert_outcomes()


@pytest.mark.parametrize("seed", range(30))
def test_with_drafts_nobody_gets_other_tokens_or_fails_for_a_guess(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)

    def draft(its: EngineSequence, most: int, row_share: float) -> tuple[int, ...]:
        tokens = list(its.tokens)
        for _ in range(chance.randrange(6)):
            tokens.append(after(tokens) if chance.random() < 0.8 else chance.randrange(VOCABULARY))
        return tuple(tokens[len(its.tokens) :][:most])

    monkeypatch.setattr(EngineSequence, "draft", draft)
    case = Case(random.Random(seed), Model())
    for name in range(12):
        case.ask(name)
    scheduler = case.engine._scheduler
    case.assert_outcomes()
    assert 0 < scheduler.accepted < scheduler.drafted


def test_a_state_that_cannot_be_truncated_has_no_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Speculator, "draft", lambda *_: (1, 2))
    case = Case(random.Random(0), Summing())
    case.ask(0)
    scheduler = case.engine._scheduler
    case.assert_outcomes()
    assert scheduler.drafted == 0


class Played:
    """A step of sequences of one token each, on a model and with a clock that are played."""

    def __init__(
        self,
        *works: object,
        seconds: float = 0.0,
        functions: dict[str, list[int]] | None = None,
        draft: tuple[int, ...] = (),
    ) -> None:
        """A row of `works` that is an error fails each attempt that it is part of, after so many seconds.

        The last row but the `draft` of the last sequence is its own.
        """
        self.draft = draft
        self.cold = False
        self.works, self.seconds, self.now = works, seconds, 100.0
        self.functions = functions or {}  # name to the tokens that are sent to it
        self.attempts: list[list[int]] = []
        self.costs = StepCosts()

    def forward(self, batch: Batch) -> Tensor:
        self.attempts.append(batch.tokens)
        rows = {
            name: [batch.tokens.index(t) for t in its if t in batch.tokens] for name, its in self.functions.items()
        }
        sent = [(name, part(its)) for name, its in rows.items() if its]
        self.costs.send([name for name, _ in sent], [p._replace(block=i) for i, (_, p) in enumerate(sent)])
        for token in batch.tokens:
            if isinstance(error := self.works[token], Exception):
                self.now += self.seconds
                raise error
        self.costs.add([part(range(len(batch.tokens)))], [reply(10**9, self.cold)], replies((1.0, 10**9)))
        return torch.zeros(len(batch.tokens), 1)

    def run(self) -> StepOutcome:
        members = [
            RequestState(
                GenerationRequest(str(i), (i,), SamplingParams(temperature=0)),
                lambda _: None,
                Letters(),
                frozenset(),
            )
            for i in range(len(self.works) - len(self.draft))
        ]
        work = [ScheduledTokens(running.sequence, 1) for running in members]
        work[-1] = replace(work[-1], count=1 + len(self.draft), draft=self.draft)
        batch = Batch.of(work, members)
        return Attempts(self.forward, self.again, self.costs, lambda: self.now).run(batch, 0.0)

    def again(self, batch: Batch, members: Sequence[int]) -> Batch | None:
        return batch.part(members)

    def failed(self) -> list[int]:
        return sorted(int(running.request.id) for running, _ in self.run().failed)


def test_one_of_many_is_found_in_few_attempts() -> None:
    played = Played(*[0] * 63, ValueError())
    outcome = played.run()
    assert [running.request.id for running, _ in outcome.failed] == ["63"]
    assert sum(len(part.members) for part, _ in outcome.done) == 63
    assert not outcome.typical
    assert len(played.attempts) == 1 + 2 * 6


def test_who_was_not_sent_to_the_function_that_failed_is_not_divided() -> None:
    error = FunctionError("f", "ValueError", "no")
    played = Played(0, error, 0, 0, functions={"f": [1, 2], "g": [0, 1, 2, 3]})
    assert played.failed() == [1]
    assert played.attempts == [[0, 1, 2, 3], [0, 3], [1], [2]]


def test_a_deadline_is_waited_for_once_and_all_who_were_sent_there_fail() -> None:
    error = DeadlineExceeded("local", "f", "no answer")
    played = Played(0, error, error, 0, seconds=120.0, functions={"f": [1, 2]})
    assert played.failed() == [1, 2]
    assert played.attempts == [[0, 1, 2, 3], [0, 3]]


def test_a_platform_that_answers_nobody_is_waited_for_twice() -> None:
    errors = [DeadlineExceeded("local", name, "no answer") for name in "fgh"]
    played = Played(*errors, functions={"f": [0], "g": [1], "h": [2]}, seconds=120.0)
    assert played.failed() == [0, 1, 2]
    assert len(played.attempts) == 2


def test_a_guess_that_fails_is_left_out_and_its_sequence_goes_on() -> None:
    played = Played(0, 0, 0, ValueError(), draft=(2, 3))
    assert played.failed() == []
    assert played.attempts == [[0, 1, 2, 3], [0, 1]]


def test_a_guess_that_took_long_to_fail_is_not_waited_for_again() -> None:
    played = Played(0, DeadlineExceeded("local", "f", "no answer"), seconds=120.0, draft=(1,))
    assert played.failed() == [0]
    assert played.attempts == [[0, 1]]


def test_attempts_end_after_a_while() -> None:
    played = Played(*[ValueError()] * 64, seconds=4.0)
    assert played.failed() == list(range(64))
    assert played.now - 100 <= 4.0 + attempts._MOST_SECONDS + 4.0


def test_a_step_with_a_cold_start_is_not_typical() -> None:
    played = Played(0, 0)
    assert played.run().typical
    played.cold = True
    assert not played.run().typical


def test_attempts_in_vain_are_paid_for_by_those_who_fail() -> None:
    outcome = Played(0, 0, ValueError(), 0).run()
    owed = np.zeros(4)
    for bill in outcome.bills:
        owed[int(bill.running.request.id)] += bill.costs[0]
    assert owed.tolist() == pytest.approx([0.5, 0.5, 0.0, 1.0])  # of the calls of [0, 1] and [3]
