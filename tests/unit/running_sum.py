"""A made-up kind of state: one number a sequence, however long, which cannot go back to fewer tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class RunningSumSpec:
    """Implements `LayerSpec`."""

    size: int = 8  # bytes
    truncatable: bool = False

    def nbytes(self, tokens: int) -> int:
        return self.size

    def allocate(self) -> RunningSum:
        return RunningSum()


class RunningSum:
    """Implements `LayerState`: the sum of all tokens, and how many they are."""

    def __init__(self) -> None:
        self.total = torch.zeros((), dtype=torch.int64)
        self.length = 0
        self.reserved = 0

    @property
    def nbytes(self) -> int:
        return self.total.nbytes

    def add(self, tokens: Sequence[int]) -> int:
        assert self.length + len(tokens) <= self.reserved
        self.total += sum(tokens)
        self.length += len(tokens)
        return int(self.total)

    def reserve(self, tokens: int) -> None:
        self.reserved = tokens

    def truncate(self, tokens: int) -> bool:
        if tokens == 0:
            self.total.zero_()
            self.length = 0
        return tokens == self.length

    def copy_from(self, other: RunningSum, tokens: int) -> bool:
        if tokens != other.length:
            return False
        self.total.copy_(other.total)
        self.length = tokens
        return True
