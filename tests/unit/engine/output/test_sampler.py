from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from faasmoe.engine.output.sampler import Sampler
from faasmoe.protocol.request import SamplingParams

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
SIZE = 300  # of the vocabulary of the naive reference: more than the first try for a nucleus

logits_of = st.builds(
    lambda seed, scale: torch.randn(SIZE, generator=torch.Generator().manual_seed(seed)) * scale,
    st.integers(0, 2**32),
    st.sampled_from([0.01, 1.0, 5.0]),
)


def draws(count: int, **params: object) -> list[int]:
    sampler = Sampler(SamplingParams(**params))
    return [sampler.pick(LOGITS) for _ in range(count)]


def dense(sampler: Sampler, logits: Tensor) -> list[float]:
    """The sampler's distribution over the whole vocabulary."""
    tokens, probabilities = sampler.distribution(logits)
    whole = torch.zeros(len(logits))
    whole[slice(None) if tokens is None else tokens] = probabilities
    return whole.tolist()


def naive(logits: Tensor, params: SamplingParams, prompt: list[int], picked: list[int]) -> list[float]:
    """The same from the definitions, one token after the other, in double precision."""
    x = logits.double().tolist()
    for token, bias in params.logit_bias:
        x[token] += bias
    for token in {*prompt, *picked}:
        x[token] *= params.repetition_penalty if x[token] < 0 else 1 / params.repetition_penalty
    for token, count in Counter(picked).items():
        x[token] -= params.frequency_penalty * count + params.presence_penalty
    weights = [math.exp((value - max(x)) / params.temperature) for value in x]
    weights = [w if w >= params.min_p * max(weights) else 0.0 for w in weights]
    order = sorted((i for i in range(len(x)) if weights[i]), key=lambda i: -weights[i])
    if params.top_k > 0:
        order = order[: params.top_k]
    total, reached, kept = sum(weights[i] for i in order), 0.0, []
    for i in order:
        if params.top_p < 1 and reached >= params.top_p * total:
            break
        kept.append(i)
        reached += weights[i]
    return [weights[i] / reached if i in kept else 0.0 for i in range(len(x))]


def assert_agrees(logits: Tensor, params: SamplingParams, prompt: list[int] = (), picked: list[int] = ()) -> None:
    sampler = Sampler(params, prompt)
    for token in picked if sampler._penalties else ():
        sampler._penalties.note(token)
    untouched = logits.clone()
    assert dense(sampler, logits) == pytest.approx(naive(logits, params, list(prompt), list(picked)), abs=2e-4)
    assert torch.equal(logits, untouched)


@given(logits_of, st.floats(0.1, 2))
def test_temperature_is_the_definition(logits: Tensor, temperature: float) -> None:
    assert_agrees(logits, SamplingParams(temperature=temperature))


@given(logits_of, st.integers(-1, SIZE + 5))
def test_top_k_is_the_definition(logits: Tensor, top_k: int) -> None:
    assert_agrees(logits, SamplingParams(top_k=top_k))


@given(logits_of, st.floats(0.01, 1))
def test_min_p_is_the_definition(logits: Tensor, min_p: float) -> None:
    assert_agrees(logits, SamplingParams(min_p=min_p))


@given(logits_of, st.floats(0.01, 0.999))
def test_top_p_is_the_definition(logits: Tensor, top_p: float) -> None:
    """Whatever rounding makes of a token at the very edge, the nucleus reaches `top_p` and none of it can go."""
    tokens, probabilities = Sampler(SamplingParams(top_p=top_p)).distribution(logits)
    whole = torch.softmax(logits.double(), -1)
    assert tokens is not None
    kept = whole[tokens]
    assert float(kept.sum()) >= top_p - 1e-5
    assert float(kept.sum() - kept.min()) < top_p + 1e-5
    assert set(tokens.tolist()) == set(whole.topk(len(tokens)).indices.tolist())
    assert torch.allclose(probabilities.double(), kept / kept.sum(), atol=1e-6)


@given(
    logits_of,
    st.lists(st.integers(0, SIZE - 1), max_size=200),
    st.lists(st.integers(0, SIZE - 1), max_size=200),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(0.5, 2),
)
def test_penalties_are_the_definition(
    logits: Tensor, prompt: list[int], picked: list[int], presence: float, frequency: float, repetition: float
) -> None:
    params = SamplingParams(
        presence_penalty=presence, frequency_penalty=frequency, repetition_penalty=repetition, temperature=1.5
    )
    assert_agrees(logits, params, prompt, picked)


@given(logits_of, st.dictionaries(st.integers(0, SIZE - 1), st.floats(-100, 100), max_size=20))
def test_logit_bias_is_the_definition(logits: Tensor, bias: dict[int, float]) -> None:
    assert_agrees(logits, SamplingParams(logit_bias=tuple(bias.items())))


@settings(max_examples=50)
@given(logits_of, st.lists(st.integers(0, SIZE - 1), max_size=20))
def test_all_rules_together_in_vllms_order(logits: Tensor, picked: list[int]) -> None:
    params = SamplingParams(
        temperature=0.8,
        min_p=0.01,
        top_k=40,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.2,
        logit_bias=((3, 2.0), (7, -100.0)),
    )
    assert_agrees(logits, params, [3, 5], picked)


def test_greedy_takes_the_likeliest_after_bias_and_penalties() -> None:
    assert draws(3, temperature=0) == draws(3, temperature=1e-7) == [0, 0, 0]
    assert draws(2, temperature=0, logit_bias=((3, 100.0),)) == [3, 3]
    assert draws(4, temperature=0, presence_penalty=2.0) == [0, 1, 2, 0]
    assert draws(4, temperature=0, frequency_penalty=1.0) == [0, 1, 0, 2]


def test_only_repetition_penalty_looks_at_the_prompt() -> None:
    for params, token in (({"repetition_penalty": 10.0}, 1), ({"presence_penalty": 2.0}, 0)):
        assert Sampler(SamplingParams(temperature=0, **params), prompt=[0]).pick(LOGITS) == token


def test_the_seen_tokens_grow_past_their_first_room() -> None:
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2.0))
    order = torch.linspace(1, 0, 500)
    assert [sampler.pick(order) for _ in range(500)] == list(range(500))


def test_draws_follow_the_probabilities() -> None:
    got = torch.bincount(torch.tensor(draws(4000, seed=1)), minlength=4) / 4000
    assert torch.allclose(got, LOGITS.exp(), atol=0.03)


@pytest.mark.parametrize("top_p", [0.4, 0.6, 0.81])
@pytest.mark.parametrize("top_k", [0, 2])
def test_draws_come_from_what_is_left(top_p: float, top_k: int) -> None:
    left = dense(Sampler(SamplingParams(top_p=top_p, top_k=top_k)), LOGITS)
    assert set(draws(500, seed=1, top_p=top_p, top_k=top_k)) == {i for i, p in enumerate(left) if p}


def test_the_likeliest_token_always_stays() -> None:
    for params in ({"top_p": 1e-9}, {"top_p": 5e-324}, {"min_p": 1.0}, {"top_k": 1}, {"temperature": 1e-5}):
        assert set(draws(50, **params)) == {0}
    assert set(draws(500, seed=1, min_p=5e-324)) == {0, 1, 2, 3}


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    assert draws(50, seed=-3) == draws(50, seed=-3)
    assert draws(50) != draws(50)


def test_choices_have_seeds_of_their_own_and_the_first_has_the_request_s() -> None:
    params = SamplingParams(seed=5)
    seeds = [params.choice(i).seed for i in range(128)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 128
    assert seeds == [params.choice(i).seed for i in range(128)]
    assert not set(seeds[1:]) & {SamplingParams(seed=6).choice(i).seed for i in range(128)}
    assert SamplingParams().choice(3).seed is None
