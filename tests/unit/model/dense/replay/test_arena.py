from __future__ import annotations

import random
from itertools import combinations

import torch
from torch import Tensor

from faasmoe.model.dense.replay.arena import Arena, Buffer, _place
from faasmoe.model.dense.replay.operation import Operation


def operation(result: Tensor, *arguments: Tensor) -> Operation:
    return Operation(function=None, arguments=arguments, results=[result])


def test_buffers_that_live_at_the_same_time_are_apart() -> None:
    generator = random.Random(0)
    lives = [(generator.randrange(1, 500), first, generator.randrange(20)) for first in range(200)]
    buffers = [Buffer(nbytes, first, first + rest) for nbytes, first, rest in lives]
    nbytes = _place(buffers)
    for one, other in combinations(buffers, 2):
        if one.last >= other.first:
            assert one.offset + one.nbytes <= other.offset or other.offset + other.nbytes <= one.offset
    assert all(buffer.offset % 64 == 0 for buffer in buffers)
    assert nbytes < sum(buffer.nbytes for buffer in buffers) / 4


def test_tensors_keep_their_form_and_share_memory_as_they_did() -> None:
    x, weight = torch.ones(4), torch.ones(4)
    a, b, c = torch.ones(3, 4), torch.ones(3, 4), torch.ones(3, 4)
    part = a[1:, ::2]
    operations = [operation(a, x, weight), operation(part, a), operation(b, part), operation(c, b)]
    arena = Arena(operations, [x], c)
    arena.lie_in(torch.zeros(arena.nbytes, dtype=torch.uint8))
    assert arena.tensor(x) is x
    assert arena.tensor(weight) is weight
    mine, its = arena.tensor(a), arena.tensor(part)
    assert (its.shape, its.stride(), its.dtype) == (part.shape, part.stride(), part.dtype)
    mine.copy_(torch.arange(12.0).view(3, 4))
    assert torch.equal(its, mine[1:, ::2])
    assert arena.tensor(c).data_ptr() == mine.data_ptr()  # nobody reads a any more


def test_the_result_outlives_all() -> None:
    x, result, later = torch.ones(4), torch.ones(4), torch.ones(4)
    arena = Arena([operation(result, x), operation(later, x)], [x], result)
    arena.lie_in(torch.zeros(arena.nbytes, dtype=torch.uint8))
    assert arena.tensor(result).data_ptr() != arena.tensor(later).data_ptr()
