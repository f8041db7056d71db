"""Steps that fail for one sequence's sake: on a model whose tokens depend on all that its caches hold."""

from __future__ import annotations

import queue
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
from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.costs import StepCosts
from faasmoe.engine.request_state import RequestState
from faasmoe.engine.sequence import Sequence as EngineSequence
from faasmoe.engine.speculation.speculator import Speculator
from faasmoe.engine.step import ScheduledTokens
from faasmoe.errors import DeadlineExceeded, FunctionError
from faasmoe.model.dense.attention import Span
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.errors import NOT_FINITE
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.unit.engine.experts.test_costs import part, replies, reply
from tests.unit.running_sum import RunningSumSpec

HARMLESS, VOCABULARY = 90, 97
FIRST_LAYER, BETWEEN, NAN, INFINITE, ONCE = range(HARMLESS, HARMLESS + 5)  # tokens that do harm, and where
LATER = 89  # a prompt that begins with it comes to the harmful token after it when it is decoded


class Model:
    """Two layers that keep what they see; the next token is a sum over all of it."""

    vocabulary = VOCABULARY
    state_spec = StateSpec(dict.fromkeys((0, 1), KVCacheSpec(1, 1, 1, torch.float64, torch.float64)))

    def __init__(self) -> None:
        self.costs = StepCosts()
        self.calls = 0
        self.failed_once = False

    def forward(self, tokens: list[int], positions: list[int], spans: list[Span], wanted: list[int]) -> Tensor:
        kept: list[list[Tensor]] = []
        for layer, harmful in enumerate((FIRST_LAYER, BETWEEN)):
            start, now = 0, []
            for span in spans:
                end = start + span.count
                own = torch.tensor(tokens[start:end], dtype=torch.float64).view(1, -1, 1)
                keys, values = span.state.layers[layer].append(own, own)
                assert keys.shape[1] == positions[end - 1] + 1
                assert torch.equal(keys, values)
                now += [keys[0, : position + 1, 0] for position in positions[start:end]]
                start = end
            kept.append(now)
            if harmful in tokens:
                raise ValueError("a token that the model cannot take")
            if ONCE in tokens and not self.failed_once:
                self.failed_once = True
                raise OSError("it will not happen again")
            self.calls += 1
            self.costs.add([part(range(len(tokens)))], [reply(10**9)], replies((1.0, 10**9)))
        assert all(map(torch.equal, *kept))
        return torch.stack([self._logits(kept[0][row].long().tolist()) for row in wanted])

    def _logits(self, seen: list[int]) -> Tensor:
        logits = -(torch.arange(VOCABULARY) - after(seen)).abs().float()
        if NAN in seen:
            logits[7] = torch.nan
        if INFINITE in seen:
            logits[7] = torch.inf
        return logits


def after(seen: list[int]) -> int:
    if seen[0] == LATER and len(seen) == 24:
        return seen[1] + HARMLESS
    return sum(place * token for place, token in enumerate(seen, start=1)) % LATER


A_TOKEN = Model.state_spec.nbytes(1)


class Summing(Model):
    """Keeps a running sum as well, which cannot go back when a step fails."""

    state_spec = StateSpec({**Model.state_spec.layers, 2: RunningSumSpec(size=10 * A_TOKEN)})

    def forward(self, tokens: list[int], positions: list[int], spans: list[Span], wanted: list[int]) -> Tensor:
        start, sums = 0, []
        for span in spans:
            sums.append(span.state.layers[2].add(tokens[start : start + span.count]))
            start += span.count
        logits = super().forward(tokens, positions, spans, wanted)
        for span, total in zip(spans, sums, strict=True):
            cache = span.state.layers[0]
            assert total == int(cache.keys[0, : cache.length, 0].sum())
        return logits


class Letters:
    """A token is a character."""

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        return "".join(chr(0x100 + token) for token in token_ids)

    def token_bytes(self, token: int) -> bytes:
        return self.decode([token]).encode()


def undisturbed(prompt: list[int], count: int) -> str:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(after(tokens))
    return Letters().decode(tokens[len(prompt) :])


class Case:
    """Random requests, some of which are cancelled and some of which do harm."""

    def __init__(self, chance: random.Random, model: Model) -> None:
        self.beginning = [chance.randrange(LATER) for _ in range(40)]  # that some have in common
        self.chance = chance
        self.model = model
        self.engine = Engine(
            self.model,  # type: ignore[arg-type]
            Letters(),
            end_tokens=frozenset(),
            max_model_len=200,
            options=EngineOptions(
                kv_cache_bytes=model.state_spec.nbytes(chance.choice([150, 300, 4000])),
                max_step_tokens=40,
                max_sequences=8,
            ),
            costs=self.model.costs,
        )
        self.asked: list[tuple[list[int], int, int | None, bool]] = []
        self.pieces: list[queue.SimpleQueue[Piece]] = []

    def ask(self, name: int) -> None:
        chance = self.chance
        prompt = self.beginning[: chance.choice([0, 20, 40])] + [
            chance.randrange(LATER) for _ in range(chance.randrange(1, 30))
        ]
        harm = chance.choice([None, None, None, FIRST_LAYER, BETWEEN, NAN, INFINITE, ONCE])
        if harm is not None and chance.random() < 0.5:
            prompt = [LATER, harm - HARMLESS, *[1] * chance.randrange(18)]
        elif harm is not None:
            prompt[chance.randrange(len(prompt))] = harm
        count, cancelled = chance.randrange(26, 40), chance.random() < 0.2
        self.asked.append((prompt, count, harm, cancelled))
        self.pieces.append(queue.SimpleQueue())
        params = SamplingParams(count, temperature=0)
        tenant = chance.choice("ab")
        self.engine.submit(GenerationRequest(str(name), tuple(prompt), params, tenant=tenant), self.pieces[-1].put)
        if cancelled:
            self.pieces[-1].get(timeout=60)
            self.engine.cancel(str(name))

    def assert_outcomes(self) -> None:
        invocations = 0.0
        for (prompt, count, harm, cancelled), pieces in zip(self.asked, self.pieces, strict=True):
            text, last = "", Piece("", 0)
            while not last.last and not (cancelled and pieces.empty()):
                last = pieces.get(timeout=60)
                text += last.text
            invocations += last.used.invocations if last.used else 0
            if cancelled:
                continue
            if harm is None or (harm == ONCE and not last.error):  # alone in its step it is not tried again
                assert (last.error, last.finish_reason) == (None, "length")
                assert text == undisturbed(prompt, count)
            else:
                assert last.error == (NOT_FINITE if harm in (NAN, INFINITE) else INTERNAL)
                assert undisturbed(prompt, count).startswith(text)
        self.engine.close()
        gauges = self.engine.gauges()
        assert self.engine.load() == (0, 0)
        assert gauges["kv_cache_tokens_used"] == gauges["kv_cache_tokens_kept"]
        assert not self.engine._memory._began
        if not any(cancelled for *_, cancelled in self.asked):
            assert invocations == pytest.approx(self.model.calls)


INTERNAL = "the request could not be run: an internal error; the server's log has it"


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
