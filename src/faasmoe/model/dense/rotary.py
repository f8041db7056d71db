"""Rotary position embedding (Su et al. 2021) in one compiled call for query and key, instead of 14 operations of torch.

Transformers' attentions call a function of their own module for it, by one name. An attention whose function turns
halves of heads, which is found by running it, gets a copy of its forward in which the name means ours.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from faasmoe.experts.kernels.library import ADDRESS, LIBRARY
from faasmoe.model.adapter.forwards import call_instead, called_function
from faasmoe.model.dense.replay.operation import TURN_HALVES, Kernel, Row, visible

_NAME = "apply_rotary_pos_emb"

Turn = Callable[..., tuple[Tensor, Tensor]]
"""`(query, key, cos, sin, ...)` to both turned."""


_TURN = struct.Struct("11q")  # `struct turn` in rotary.c
_turn_halves = LIBRARY.function("turn_halves", ADDRESS)


class RotaryKernel(Kernel):
    """Turns halves of heads, as `replay.operation.Kernel`."""

    def __call__(self, *tensors: Tensor) -> Tensor:
        """`x`, `cos` and `sin`: see `turn_halves`. The numbers of a head of `x` follow each other."""
        x, cos, sin = tensors
        y = torch.empty_like(x)
        _turn_halves(_TURN.pack(*_words(x, cos, sin, y)))
        return y

    def row(self, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> Row:
        """See `Kernel`."""
        x, cos, sin = tensors
        return TURN_HALVES, *_words(x, cos, sin, results[0])


_TURNING = RotaryKernel()


def _words(x: Tensor, cos: Tensor, sin: Tensor, y: Tensor) -> tuple[int, ...]:
    _, heads, tokens, dim = x.shape
    (_, head, token, _), (_, its_head, its_token, _) = x.stride(), y.stride()
    places = (x.data_ptr(), token, head, y.data_ptr(), its_token, its_head, cos.data_ptr(), sin.data_ptr())
    return *places, tokens, heads, dim


def turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`[1, heads, T, dim]` by `cos` and `sin` `[1, T, dim]`, all bfloat16; the same shape, laid out as `x` if dense.

    `cos` and `sin` are contiguous, and dim is even.
    """
    return visible(_TURNING, x if x.stride(3) == 1 else x.contiguous(), cos, sin)


class Rotary:
    """Stands in for a function that turns halves of heads."""

    def __init__(self, own: Turn) -> None:
        self._own = own

    def __call__(
        self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, *rest: Any, **named: Any
    ) -> tuple[Tensor, Tensor]:
        """`query` `[1, heads, T, dim]`, `key` `[1, kv_heads, T, dim]`, `cos` and `sin` `[1, T, dim]` to both turned."""
        if rest or named or not _fit(query, key, cos, sin):
            return self._own(query, key, cos, sin, *rest, **named)
        cos, sin = cos.contiguous(), sin.contiguous()
        return turn_halves(query, cos, sin), turn_halves(key, cos, sin)


def _fit(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    shape, its = query.shape, key.shape
    return (
        query.dtype == key.dtype == cos.dtype == sin.dtype == torch.bfloat16
        and len(shape) == len(its) == 4
        and shape[0] == its[0] == 1
        and its[2:] == shape[2:]
        and cos.shape == sin.shape == (1, *shape[2:])
        and shape[3] % 2 == 0
    )


def take_over(model: nn.Module) -> None:
    """Have every attention of `model` that turns halves of heads by a function of its module use ours."""
    rotary: dict[Turn, Rotary | None] = {}
    for module in model.modules():
        own = called_function(module, _NAME)
        if own is None:
            continue
        if own not in rotary:
            rotary[own] = Rotary(own) if _turns_halves(own) else None
        if ours := rotary[own]:
            call_instead(module, _NAME, ours)


@torch.inference_mode()
def _turns_halves(own: Turn) -> bool:
    generator = torch.Generator().manual_seed(0)
    tokens, dim = 5, 16
    query, key = (torch.randn(1, heads, tokens, dim, generator=generator).bfloat16() for heads in (4, 2))
    cos, sin = (torch.randn(1, tokens, dim, generator=generator).bfloat16() for _ in range(2))
    try:
        wanted = own(query, key, cos, sin)
    except (TypeError, ValueError, RuntimeError, IndexError):  # one that wants other operands
        return False
    got = turn_halves(query, cos, sin), turn_halves(key, cos, sin)
    return len(wanted) == 2 and all(torch.equal(its, own) for its, own in zip(got, wanted, strict=True))
