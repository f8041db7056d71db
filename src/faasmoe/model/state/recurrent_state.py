"""The recurrent state of one sequence in one layer: tensors of a size that does not grow with the tokens seen.

Such as the matrix of a linear attention, the state of a state space model, or the tail of a convolution's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StatePart:
    """One tensor of a recurrent state: its name, its shape for one sequence, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class RecurrentSpec:
    """The tensors of a layer's recurrent state (`LayerSpec`)."""

    parts: tuple[StatePart, ...]

    def nbytes(self, tokens: int) -> int:
        """See `LayerSpec.nbytes`: the same for any number of `tokens`."""
        return sum(prod(part.shape) * part.dtype.itemsize for part in self.parts)

    @property
    def truncatable(self) -> bool:
        """False: what a token has changed cannot be undone."""
        return False

    def allocate(self) -> RecurrentState:
        """A state that has seen nothing."""
        return RecurrentState({part.name: torch.empty(part.shape, dtype=part.dtype) for part in self.parts})


class RecurrentState:
    """Tensors by name, of one sequence (`LayerState`). What is in them counts from the first token on."""

    __slots__ = ("_reserved", "length", "tensors")

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.length = 0  # tokens seen
        self._reserved = 0

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def reserve(self, tokens: int) -> None:
        """Permit `tokens` tokens."""
        self._reserved = tokens

    def advance(self, tokens: int) -> None:
        """Count `tokens` more tokens, before they change the tensors: a step that fails meanwhile is seen so.

        Raises `ValueError` for more tokens than are reserved.
        """
        if self.length + tokens > self._reserved:
            raise ValueError(f"{self.length + tokens} tokens; {self._reserved} are reserved")
        self.length += tokens

    def truncate(self, tokens: int) -> bool:
        """Forget all tokens, or none. Returns False for any other number."""
        if tokens not in (0, self.length):
            return False
        self.length = tokens
        return True

    def copy_from(self, other: RecurrentState, tokens: int) -> bool:
        """Fill this empty state with `other`. Returns False if that has seen another number of tokens."""
        if tokens != other.length:
            return False
        self.advance(tokens)
        for name, tensor in self.tensors.items():
            tensor.copy_(other.tensors[name])
        return True
