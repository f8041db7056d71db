from __future__ import annotations

import pytest
import torch

from faasmoe.errors import RequestError
from faasmoe.orchestrator.request import SamplingParams
from faasmoe.orchestrator.sampler import Sampler

LOGITS = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def draws(count: int, **params: object) -> list[int]:
    sampler = Sampler(SamplingParams(**params))
    return [sampler.pick(LOGITS) for _ in range(count)]


def test_greedy_takes_the_likeliest() -> None:
    assert draws(3, temperature=0) == [0, 0, 0]


def test_draws_follow_the_probabilities() -> None:
    got = torch.bincount(torch.tensor(draws(4000, seed=1)), minlength=4) / 4000
    assert torch.allclose(got, LOGITS.exp(), atol=0.03)


def test_temperature_sharpens() -> None:
    got = torch.bincount(torch.tensor(draws(4000, seed=1, temperature=0.5)), minlength=4) / 4000
    assert torch.allclose(got, torch.softmax(2 * LOGITS, 0), atol=0.03)


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, {0}), (0.5, {0}), (0.6, {0, 1}), (0.81, {0, 1, 2})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: set[int]) -> None:
    assert set(draws(500, seed=1, top_p=top_p)) == kept


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    assert draws(50, seed=-3) == draws(50, seed=-3)
    assert draws(50) != draws(50)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -1.0),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("seed", 2**63),
        ("stop", ("",)),
        ("stop", ("a", "b", "c", "d", "e")),
    ],
)
def test_values_out_of_range_name_the_field(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field
