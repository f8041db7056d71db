"""The state of a sequence: the memory in which each layer of the model keeps the tokens that it has seen.

Each layer chooses a kind (`LayerSpec`), such as the KV cache of an attention layer, or several. The engine allocates,
copies, truncates and counts states through the protocols of this module and knows no kind. A new kind, such as a
recurrent matrix, is a module of this folder; the layer that needs it declares it when the model is loaded
(`FlatRow.note_state`).
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol, Self

_LENGTHS = 4096  # for which sizes are kept: a context of 64k tokens in steps of 16
UNLIMITED = sys.maxsize  # tokens or bytes

StateKey = int | str
"""Whose state it is: that of a layer's attention, or of the module of this name, such as a convolution in a layer."""


class LayerState(Protocol):
    """The state of one sequence in one layer. The layer adds tokens to it with methods of the kind's own."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors that it holds now."""

    def reserve(self, tokens: int) -> None:
        """Permit the state to grow to `tokens` tokens. It may allocate them later, when the layer adds tokens."""

    def truncate(self, tokens: int) -> bool:
        """Forget all but the first `tokens` tokens. Returns False, and changes nothing, if the kind cannot do that.

        Every kind can forget all tokens (`tokens` is 0), and can keep all that it has.
        """

    def copy_from(self, other: Self, tokens: int) -> bool:
        """Fill this empty state with the first `tokens` tokens of `other`, for which memory is reserved.

        Returns False, and changes nothing, if `other` cannot give them. Raises `MemoryError` or `RuntimeError` if
        there is no memory.
        """


class LayerSpec(Protocol):
    """A kind of state, with the shapes and dtypes of one layer: hashable, and equal if these are."""

    def nbytes(self, tokens: int) -> int:
        """Bytes of a state with memory for `tokens` tokens, never fewer for more tokens.

        A state for 0 tokens has the bytes that it is allocated with.
        """

    @property
    def truncatable(self) -> bool:
        """Whether a state of n tokens contains those of its first 1 to n - 1 tokens."""

    def allocate(self) -> LayerState:
        """An empty state."""


class SequenceState:
    """The states of one sequence in all layers. Its memory is freed with the object."""

    __slots__ = ("capacity", "layers")

    def __init__(self, layers: dict[StateKey, Any] | None = None) -> None:
        """Without `layers` (`LayerState` by key) it can hold no token."""
        self.layers = {} if layers is None else layers
        self.capacity = 0  # tokens

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors now."""
        return sum(state.nbytes for state in self.layers.values())

    def reserve(self, tokens: int) -> None:
        """Permit every layer to grow to `tokens` tokens, and no further."""
        self.capacity = tokens
        for state in self.layers.values():
            state.reserve(tokens)

    def truncate(self, tokens: int) -> int:
        """Forget all but the first `tokens` tokens. Returns how many are left: 0 if a layer cannot keep just those."""
        if all(state.truncate(tokens) for state in self.layers.values()):
            return tokens
        for state in self.layers.values():
            state.truncate(0)
        return 0

    def copy_from(self, other: SequenceState, tokens: int) -> int:
        """Fill this empty state with the first `tokens` tokens of `other`, whose layers are of the same kinds.

        Returns how many it has then: 0 if a layer of `other` cannot give just those. Raises `MemoryError` or
        `RuntimeError` if there is no memory; this state is then to be discarded.
        """
        if all(state.copy_from(other.layers[layer], tokens) for layer, state in self.layers.items()):
            return tokens
        return self.truncate(0)


class StateSpec:
    """The kinds of state of all layers of a model, and the sizes of a sequence's state as a whole."""

    def __init__(self, layers: Mapping[StateKey, LayerSpec]) -> None:
        self.layers: dict[StateKey, LayerSpec] = dict(layers)
        self._kinds = Counter(self.layers.values())
        self._sizes = lru_cache(_LENGTHS)(self._size)  # the scheduler asks for the same lengths again and again
        self.truncatable = all(spec.truncatable for spec in self.layers.values())

    def allocate(self) -> SequenceState:
        """An empty state that has no memory reserved."""
        return SequenceState({layer: spec.allocate() for layer, spec in self.layers.items()})

    def nbytes(self, tokens: int) -> int:
        """Bytes that a sequence takes with memory for `tokens` tokens, at most, while it grows to them.

        A sequence without memory for a token takes none.
        """
        return self._sizes(tokens)

    def _size(self, tokens: int) -> int:
        if not tokens:
            return 0
        # layers grow one after the other, by copying: one of them exists twice meanwhile, at most the largest
        total = largest = 0
        for spec, layers in self._kinds.items():
            size = spec.nbytes(tokens)
            total += layers * size
            largest = max(largest, size - spec.nbytes(0))
        return total + largest

    def tokens_within(self, nbytes: int) -> int:
        """The most tokens for which one sequence can have memory in `nbytes` bytes; `UNLIMITED` if any number can."""
        return bisect_right(range(1, UNLIMITED + 1), nbytes, key=self._sizes)

    def tokens_held(self, nbytes: int, length: int) -> int:
        """How many tokens `nbytes` bytes hold of sequences that have memory for `length` tokens each."""
        return nbytes * length // (self.nbytes(length) or length)

    def reusable(self, held: int, common: int) -> int:
        """How many tokens another sequence can take from a state of `held` tokens, if `common` of them are alike.

        A state that cannot be truncated is a snapshot: the other sequence has use for all of it or for nothing.
        """
        if self.truncatable:
            return min(held, common)
        return held if held <= common else 0
