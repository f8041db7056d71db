"""Requests that do harm to a step, and a model whose tokens depend on all that its caches hold."""

from __future__ import annotations

import queue
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from faasmoe.engine.engine import Engine
from faasmoe.engine.experts.costs import StepCosts
from faasmoe.model.dense.attention import Span
from faasmoe.model.state.kv_cache import KVCacheSpec
from faasmoe.model.state.sequence_state import StateSpec
from faasmoe.protocol.config import EngineOptions
from faasmoe.protocol.errors import NOT_FINITE
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from tests.unit.engine.experts.parts import part, replies, reply
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
