from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.model.dense.linear import matvec, team
from faasmoe.model.dense.linear.linear_group import Layers
from faasmoe.model.dense.linear.matvec import linear_rows
from faasmoe.model.dense.linear.team import Team, TeamRun
from faasmoe.model.dense.replay import steps
from tests.instruction_sets import on_each

instruction_set = on_each(matvec, team, steps)


@pytest.fixture(scope="module")
def teams(instruction_set: str) -> dict[int, Team]:
    return {threads: Team(threads) for threads in (1, 2, 5)}


@given(
    threads=st.sampled_from([1, 2, 5]),
    rows=st.integers(1, 40),
    outs=st.integers(1, 3000),
    ins=st.integers(1, 40).map(lambda n: 16 * n),
    biased=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_team_gives_the_bits_of_one_thread(
    teams: dict[int, Team],
    threads: int,
    rows: int,
    outs: int,
    ins: int,
    biased: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, ins).to(dtype), torch.randn(outs, ins).to(dtype)
    bias = torch.randn(outs).to(dtype) if biased else None
    for alone in (False, True):
        (y,) = teams[threads].run(Layers((weight, bias)), x, alone=alone)
        assert torch.equal(y, linear_rows(x, weight, bias))


def test_layers_that_follow_each_other_do_not_mix(teams: dict[int, Team]) -> None:
    """Helpers wake, sleep, read ahead and come late at any moment of these."""
    torch.manual_seed(1)
    weights = [torch.randn(outs, 64).bfloat16() for outs in (16, 5000, 300, 9000)]
    layers = [Layers((weight, None)) for weight in weights]
    x = torch.randn(1, 64).bfloat16()
    wanted = [linear_rows(x, weight) for weight in weights]
    for turn in range(2000):
        i = turn % len(layers)
        assert torch.equal(teams[5].run(layers[i], x)[0], wanted[i])
        if turn % 7 == 0:
            teams[5].rest()


@pytest.mark.parametrize("between", ["nothing", "rest", "rest and go on", "other layers", "drop"])
def test_layers_can_be_begun_and_ended_in_two_steps(teams: dict[int, Team], between: str) -> None:
    """Helpers wake, sleep and come late at any moment of these."""
    torch.manual_seed(3)
    weight, others = torch.randn(3000, 64).bfloat16(), torch.randn(500, 64).bfloat16()
    layers, run = Layers((weight, None)), TeamRun(teams[5], Layers((others, None)), alone=False)
    xs = [torch.randn(1 + i % 3, 64).bfloat16() for i in range(4)]
    wanted = [linear_rows(x, weight) for x in xs]
    for turn in range(400):
        x = xs[turn % 4]
        y = torch.zeros(len(x), 3000).bfloat16()
        begin, end = TeamRun(teams[5], layers, alone=False).in_two() or ()
        rows = [its.row([x], [y]) for its in (begin, end)]
        if turn % 5 == 0:
            rows[1] = (*rows[1][:-1], 1)  # alone
        steps.runner(rows[:1])()
        if between.startswith("rest"):
            teams[5].rest()
        if between == "rest and go on":
            teams[5].resume()
        if between == "other layers":
            assert torch.equal(run(xs[0])[0], linear_rows(xs[0], others))
        if between == "drop":
            teams[5].drop()
        steps.runner(rows[1:])()
        assert torch.equal(y, wanted[turn % 4])


def test_what_comes_next_is_read_ahead_unless_experts_run_before(teams: dict[int, Team]) -> None:
    first, second, third = (Layers((torch.randn(64, 64).bfloat16(), None)) for _ in range(3))
    x = torch.randn(1, 64).bfloat16()
    team = teams[2]
    for _ in range(2):
        for layers in (first, second):
            team.run(layers, x)
        team.rest()
        team.run(first, x, alone=True)
        team.run(third, x)
    its = [(layers._next, layers.read_ahead) for layers in (first, second, third)]
    assert its == [(second, True), (third, False), (first, True)]


def test_layers_that_are_gone_can_be_read_ahead(teams: dict[int, Team]) -> None:
    """Helpers wake late: what they were to read may have been freed."""
    x = torch.randn(1, 4096).bfloat16()
    for _ in range(50):
        layers = [Layers((torch.randn(512, 4096).bfloat16(), None)) for _ in range(2)]
        for each in layers:
            assert teams[5].run(each, x)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_layers_of_a_group_give_what_each_gives_alone(teams: dict[int, Team], dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    each = [
        (torch.randn(outs, 2048).to(dtype), torch.randn(outs).to(dtype) if biased else None)
        for outs, biased in ((100, True), (1, False), (700, False), (2048, True))
    ]
    x = torch.randn(3, 2048).to(dtype)
    for y, (weight, bias) in zip(teams[2].run(Layers(*each), x), each, strict=True):
        assert torch.equal(y, linear_rows(x, weight, bias))


def test_threads_that_share_a_team_take_turns(teams: dict[int, Team]) -> None:
    weight = torch.randn(4000, 64).bfloat16()
    layers = Layers((weight, None))
    rows = [torch.randn(1, 64).bfloat16() for _ in range(4)]
    wanted = [linear_rows(x, weight) for x in rows]

    def run(i: int) -> bool:
        return all(torch.equal(teams[2].run(layers, rows[i])[0], wanted[i]) for _ in range(200))

    with ThreadPoolExecutor(len(rows)) as threads:
        assert list(threads.map(run, range(len(rows)), timeout=60)) == [True] * len(rows)


def test_what_the_kernel_cannot_read_is_refused(teams: dict[int, Team]) -> None:
    weight = torch.randn(4, 16).bfloat16()
    with pytest.raises(ValueError, match="no kernel for layers of the shapes"):
        Layers((weight.double(), None))
    with pytest.raises(ValueError, match="no kernel for layers of the shapes"):
        Layers((weight, None), (weight.float(), None))
    with pytest.raises(ValueError, match="no kernel for layers of the shapes"):
        Layers((weight.float(), torch.zeros(4).bfloat16()))
    with pytest.raises(ValueError, match="no kernel for layers of the shapes"):
        Layers((weight, None), (torch.randn(4, 32).bfloat16(), None))
    for x in (torch.randn(1, 16), torch.randn(1, 32).bfloat16()):
        with pytest.raises(ValueError, match="layers of 16 columns"):
            teams[2].run(Layers((weight, None)), x)
