from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from faasmoe.model.dense.layer_experts import LayerExperts, Meanwhile
from faasmoe.model.dense.linear.linears import Crew
from faasmoe.model.dense.overlap import Overlapped

HIDDEN, INDEX, WEIGHT = torch.ones(2, 4), torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1)


class Shared(nn.Module):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self._log = log

    def forward(self, x: Tensor) -> Tensor:
        self._log.append("shared")
        return x


def experts(log: list[str], *, room: bool) -> LayerExperts:
    """With room for more while they run, or without."""

    def routed(layer: int, hidden: Tensor, index: Tensor, weight: Tensor, meanwhile: Meanwhile) -> Tensor:
        log.append(f"sent for layer {layer}")
        if room:
            meanwhile()
        log.append("returned")
        return 3 * hidden

    shared = Overlapped(Shared(log))
    shared.learn(HIDDEN)
    shared(HIDDEN)  # it is called after the routed ones
    log.clear()
    return LayerExperts(routed, 7, [shared], Crew())


def test_shared_experts_run_meanwhile_if_there_is_room() -> None:
    log: list[str] = []
    assert torch.equal(experts(log, room=True)(HIDDEN, INDEX, WEIGHT), 3 * HIDDEN)
    assert log == ["sent for layer 7", "shared", "returned"]
    log.clear()
    experts(log, room=False)(HIDDEN, INDEX, WEIGHT)
    assert log == ["sent for layer 7", "returned"]


def test_they_are_seen_apart() -> None:
    log: list[str] = []
    layer = experts(log, room=True)
    layer.beside(HIDDEN, INDEX, WEIGHT)
    assert log == ["shared"]
    assert torch.equal(layer.rest(HIDDEN, INDEX, WEIGHT), 3 * HIDDEN)
    assert log == ["shared", "sent for layer 7", "returned"]


@pytest.mark.parametrize("room", [True, False])
def test_a_program_runs_them_once(room: bool) -> None:
    log: list[str] = []
    result = torch.zeros(2, 4)
    tensors = [HIDDEN.clone(), INDEX, WEIGHT]
    run = experts(log, room=room).bound(tensors, result, lambda: log.append("alone"), lambda: log.append("after"))
    for value in (1.0, 2.0):
        tensors[0].fill_(value)
        run()
        assert torch.equal(result, torch.full((2, 4), 3 * value))
    once = ["sent for layer 7", "alone", "returned"] if room else ["sent for layer 7", "returned", "after"]
    assert log == 2 * once
