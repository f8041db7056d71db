from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faasmoe.experts.matvec import linear_rows
from faasmoe.experts.team import Team

TEAMS = {threads: Team(threads) for threads in (1, 2, 5)}


@given(
    threads=st.sampled_from(sorted(TEAMS)),
    rows=st.integers(1, 40),
    outs=st.integers(1, 3000),
    ins=st.integers(1, 40).map(lambda n: 16 * n),
    biased=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_team_gives_the_bits_of_one_thread(
    threads: int, rows: int, outs: int, ins: int, biased: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, ins).bfloat16(), torch.randn(outs, ins).bfloat16()
    bias = torch.randn(outs).bfloat16() if biased else None
    assert torch.equal(TEAMS[threads].linear(x, weight, bias), linear_rows(x, weight, bias))


def test_layers_that_follow_each_other_do_not_mix() -> None:
    """Helpers wake, sleep and come late at any moment of these."""
    torch.manual_seed(1)
    layers = [torch.randn(outs, 64).bfloat16() for outs in (16, 5000, 300, 9000)]
    x = torch.randn(1, 64).bfloat16()
    wanted = [linear_rows(x, layer) for layer in layers]
    for turn in range(2000):
        i = turn % len(layers)
        assert torch.equal(TEAMS[5].linear(x, layers[i]), wanted[i])


def test_threads_that_share_a_team_take_turns() -> None:
    weight = torch.randn(4000, 64).bfloat16()
    rows = [torch.randn(1, 64).bfloat16() for _ in range(4)]
    wanted = [linear_rows(x, weight) for x in rows]

    def run(i: int) -> bool:
        return all(torch.equal(TEAMS[2].linear(rows[i], weight), wanted[i]) for _ in range(200))

    with ThreadPoolExecutor(len(rows)) as threads:
        assert list(threads.map(run, range(len(rows)), timeout=60)) == [True] * len(rows)


def test_what_the_kernel_cannot_read_is_refused() -> None:
    with pytest.raises(ValueError, match="no kernel"):
        TEAMS[2].linear(torch.randn(1, 16), torch.randn(4, 16))
