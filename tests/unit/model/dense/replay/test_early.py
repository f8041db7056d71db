from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from faasmoe.model.dense.layer_experts import LayerExperts
from faasmoe.model.dense.linear.linear_group import Layers
from faasmoe.model.dense.linear.linears import Crew
from faasmoe.model.dense.linear.team import Team, TeamRun
from faasmoe.model.dense.replay.early import begun_early
from faasmoe.model.dense.replay.operation import TEAM_BEGIN, TEAM_END, TEAM_RUN, Operation

aten: Any = torch.ops.aten
LAYERS = Layers((torch.randn(8, 8).bfloat16(), None))
EXPERTS = LayerExperts(lambda layer, hidden, *_: hidden, 0, [], Crew())


@pytest.fixture(scope="module")
def helped() -> Team:
    return Team(2)


def operations(run: TeamRun) -> tuple[list[Operation], Operation]:
    """A norm, a router and experts, and beside these the layers of `run` with another operation."""
    x, rows, scores, y, gated, out = (torch.randn(1, 8).bfloat16() for _ in range(6))
    view = rows.view(8)
    layers = Operation(function=run, arguments=(rows,), results=[y])
    beside = [
        Operation(function=aten.view.default, arguments=(view, [1, 8]), results=[view.view(1, 8)]),
        layers,
        Operation(function=aten.silu.default, arguments=(y,), results=[gated]),
    ]
    main = [
        Operation(function=aten.neg.default, arguments=(x,), results=[rows]),
        Operation(function=aten.view.default, arguments=(rows, [8]), results=[view]),
        Operation(function=aten.sigmoid.default, arguments=(rows,), results=[scores]),
        Operation(function=EXPERTS, arguments=(rows, scores, scores), results=[out], beside=beside),
    ]
    return main, layers


def test_layers_begin_when_their_rows_are_there_and_end_where_they_were(helped: Team) -> None:
    main, layers = operations(TeamRun(helped, LAYERS, alone=False))
    norm, begin, view, router, experts = begun_early(main)
    assert [norm, view, router] == main[:3]
    assert begin.function == TeamRun(helped, LAYERS, False, TEAM_BEGIN)
    assert (begin.arguments, begin.results) == (layers.arguments, layers.results)
    viewed, end, silu = experts.beside
    assert [viewed, silu] == [main[3].beside[0], main[3].beside[2]]
    assert end.function == TeamRun(helped, LAYERS, False, TEAM_END)
    assert end.results == layers.results
    taken: list[Tensor] = end.taken()  # all stays where it is until then
    assert taken[0] is layers.arguments[0]
    assert taken[1] is layers.results[0]


def test_what_helpers_take_no_part_in_stays_in_one(helped: Team) -> None:
    for run in (TeamRun(helped, LAYERS, alone=True), TeamRun(Team(1), LAYERS, alone=False)):
        assert run.kind == TEAM_RUN
        main, _ = operations(run)
        assert begun_early(main) == main


def test_layers_of_rows_that_are_computed_beside_a_boundary_begin_there(helped: Team) -> None:
    main, _ = operations(TeamRun(helped, LAYERS, alone=False))
    experts = main[3]
    experts.beside.insert(0, experts.beside.pop())
    assert begun_early(main) == main
