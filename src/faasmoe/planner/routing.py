"""Predicts how many functions a step's tokens call: memory, calls and cold starts depend on it.

If a token touches function f with probability q_f, n tokens leave it untouched with probability (1 - q_f)^n. The sum of
that over all functions, U(n), says everything: n tokens touch F - U(n) functions; F - U(n) have an instance if n tokens
were computed within keep-alive; and of those that n more tokens touch, U(m) - U(m + n) have no instance after m.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

from faasmoe.planner.activations import RecordedActivations
from faasmoe.planner.shape import ModelShape

Array = NDArray[np.float64]

# Tokens at which curves are kept; between them they are taken to be straight.
GRID: Array = np.unique(np.concatenate([np.arange(33), np.round(32 * 1.12 ** np.arange(1, 140))])).astype(float)
_TRUSTED = 4  # windows of the trace's length over this are taken from it, longer ones extrapolated


@dataclass(frozen=True)
class Untouched:
    """Expected numbers of untouched experts and functions, at each n of `GRID`."""

    apart: Array  # functions, by n tokens of different texts
    together: Array  # functions, by n consecutive tokens of one text
    bytes_together: Array  # weights of these

    @property
    def functions(self) -> int:
        """F: how many there are."""
        return round(float(self.apart[0]))

    def touched(self, tokens: float) -> float:
        """Functions that so many tokens of different texts touch."""
        return float(self.apart[0] - np.interp(tokens, GRID, self.apart))


@lru_cache(maxsize=64)
def untouched(shape: ModelShape, block_size: int, activations: RecordedActivations | None = None) -> Untouched:
    """The curves of all layers together. Without `activations` all experts are equally likely."""
    total = [np.zeros_like(GRID) for _ in range(3)]
    for number, layer in enumerate(shape.layers):
        sizes = np.array(shape.block_sizes(layer, block_size))
        nbytes = sizes * layer.expert_bytes
        if activations is None:
            curves = _uniform(tuple(sizes), layer.experts, layer.top_k)
            apart = together = curves
        else:
            hits = activations.hits(number, layer.experts, block_size)
            apart, together = _recorded(hits)
        total[0] += apart.sum(1)
        total[1] += together.sum(1)
        total[2] += together @ nbytes
    return Untouched(*total)


@lru_cache(maxsize=256)
def _uniform(sizes: tuple[int, ...], experts: int, top_k: int) -> Array:
    """Probability that each block is untouched, `[len(GRID), blocks]`: K different experts of E for each token."""
    missed = np.array([comb(experts - int(size), top_k) / comb(experts, top_k) for size in sizes])
    power: Array = missed[None, :] ** GRID[:, None]
    return power


def _recorded(hits: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The same from a trace, `[tokens, blocks]`: by independent draws from it, and by windows of consecutive tokens."""
    tokens, blocks = hits.shape
    likely = (hits.sum(0) + 0.5) / (tokens + 1)  # what was not seen may come yet
    apart = (1 - likely[None, :]) ** GRID[:, None]
    together = np.empty_like(apart)
    trusted = max(1, tokens // _TRUSTED) >= GRID
    for block in range(blocks):
        edges = np.flatnonzero(np.concatenate([[True], hits[:, block], [True]]))
        gaps = np.diff(edges) - 1
        windows = np.maximum(0, gaps[None, :] - GRID[trusted, None] + 1).sum(1)
        together[trusted, block] = np.where(GRID[trusted] == 0, 1.0, windows / (tokens - GRID[trusted] + 1))
    last = int(trusted.sum()) - 1
    ratio = np.divide(together[last], apart[last], out=np.ones(blocks), where=apart[last] > 0)
    together[~trusted] = np.minimum(together[last], apart[~trusted] * ratio)
    return apart, together
