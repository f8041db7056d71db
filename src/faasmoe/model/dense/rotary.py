"""Rotary position embedding (Su et al. 2021) in one compiled call for query and key, instead of 14 operations of torch.

Transformers' attentions call a function of their own module for it, by one name. An attention whose function turns
halves of heads, which is found by running it, gets a copy of its forward in which the name means ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import carray
from torch import Tensor, nn

from faasmoe.experts.kernels.compiled import compiled, narrow, pointer, widen
from faasmoe.model.adapter.forwards import call_instead, called_function

_NAME = "apply_rotary_pos_emb"

Turn = Callable[..., tuple[Tensor, Tensor]]
"""`(query, key, cos, sin, ...)` to both turned."""


@compiled
def _turned(x: Any, other: Any, cos: Any, sin: Any) -> Any:
    """`x · cos + other · sin` of numbers in bfloat16, rounded as torch rounds each operation."""
    return narrow(widen(narrow(widen(x) * widen(cos))) + widen(narrow(other * widen(sin))))


@compiled
def _turn(x: tuple[int, int, int], cos: int, sin: int, y: int, sizes: tuple[int, int, int]) -> None:
    """`x`, an address and the numbers between two tokens and two heads, to `y` `[tokens, heads, dim]`.

    `cos` and `sin` are addresses of `[tokens, dim]`; everything is bfloat16.
    """
    tokens, heads, dim = sizes
    half = dim // 2
    for token in range(tokens):
        c = carray(pointer(cos + 2 * dim * token), (dim,), np.uint16)
        s = carray(pointer(sin + 2 * dim * token), (dim,), np.uint16)
        for head in range(heads):
            source = carray(pointer(x[0] + 2 * (token * x[1] + head * x[2])), (dim,), np.uint16)
            to = carray(pointer(y + 2 * dim * (token * heads + head)), (dim,), np.uint16)
            for i in range(half):
                to[i] = _turned(source[i], -widen(source[half + i]), c[i], s[i])
                to[half + i] = _turned(source[half + i], widen(source[i]), c[half + i], s[half + i])


def turn_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`[1, heads, T, dim]` by `cos` and `sin` `[1, T, dim]`, all bfloat16; the same shape, laid out token by token."""
    _, heads, tokens, dim = x.shape
    x = x if x.stride(3) == 1 else x.contiguous()
    y = torch.empty(1, tokens, heads, dim, dtype=x.dtype)
    place = (x.data_ptr(), x.stride(2), x.stride(1))
    _turn(place, cos.data_ptr(), sin.data_ptr(), y.data_ptr(), (tokens, heads, dim))
    return y.transpose(1, 2)


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
    tokens, dim = query.shape[-2:]
    return (
        {query.dtype, key.dtype, cos.dtype, sin.dtype} == {torch.bfloat16}
        and query.dim() == key.dim() == 4
        and len(query) == len(key) == 1
        and key.shape[2:] == query.shape[2:]
        and cos.shape == sin.shape == (1, tokens, dim)
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
