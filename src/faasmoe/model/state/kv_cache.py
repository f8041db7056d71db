"""The KV cache of one sequence in one attention layer: two buffers that are contiguous in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Place = tuple[int, int, int, int]
"""The place of a KV cache: addresses of its keys and values, tokens that they have memory for, and tokens in use, the
new one included."""


@dataclass(frozen=True, slots=True)
class KVCacheSpec:
    """Shapes of a layer's keys and values (`LayerSpec`)."""

    heads: int  # of keys and values, not of queries
    key_dim: int
    value_dim: int
    key_dtype: torch.dtype
    value_dtype: torch.dtype

    @classmethod
    def like(cls, key: Tensor, value: Tensor) -> KVCacheSpec:
        """The spec of a layer with keys `[heads, n, key_dim]` and values `[heads, n, value_dim]`."""
        return cls(key.shape[0], key.shape[2], value.shape[2], key.dtype, value.dtype)

    def nbytes(self, tokens: int) -> int:
        """See `LayerSpec.nbytes`: the keys and values of `tokens` tokens."""
        a_head = self.key_dim * self.key_dtype.itemsize + self.value_dim * self.value_dtype.itemsize
        return tokens * self.heads * a_head

    @property
    def truncatable(self) -> bool:
        """True: tokens stand side by side."""
        return True

    def allocate(self) -> KVCache:
        """An empty cache."""
        keys = torch.empty(self.heads, 0, self.key_dim, dtype=self.key_dtype)
        return KVCache(keys, torch.empty(self.heads, 0, self.value_dim, dtype=self.value_dtype))


class KVCache:
    """Keys `[heads, capacity, key_dim]` and values `[heads, capacity, value_dim]` of one sequence (`LayerState`).

    The first `length` tokens are in use. The buffers grow to the reserved size when a token needs it.
    """

    __slots__ = ("_at", "_reserved", "_room", "keys", "length", "values")

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        """`keys` and `values` are the first buffers."""
        self.keys = keys
        self.values = values
        self.length = 0
        self._reserved = 0  # tokens
        self._note_buffers()

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers."""
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, tokens: int) -> None:
        """Permit the buffers to grow to `tokens` tokens.

        They grow in the step that needs it: a step for which there is no memory fails, and nothing else does.
        """
        self._reserved = tokens

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add `[heads, n, dim]` of n new tokens. Returns views of all so far, `[heads, length, dim]`.

        Raises `ValueError` for more tokens than are reserved.
        """
        start = self.length
        self._extend(key.shape[1])
        end = self.length
        self.keys[:, start:end] = key
        self.values[:, start:end] = value
        return self.keys[:, :end], self.values[:, :end]

    def make_room(self, tokens: int) -> None:
        """Let the next `tokens` tokens be added without moving the buffers. Raises `ValueError` as `append` does."""
        if self.length + tokens > self._room:
            self._grow(self.length + tokens)

    def place(self) -> Place:
        """Count one more token and return where its key and value are to be written, until the buffers grow.

        Raises `ValueError` as `append` does.
        """
        length = self.length
        if length == self._room:
            self._grow(length + 1)
        self.length = length + 1
        return (*self._at, self._room, length + 1)

    def truncate(self, tokens: int) -> bool:
        """Forget all but the first `tokens` tokens. Returns False if there are fewer."""
        if tokens > self.length:
            return False
        self.length = tokens
        return True

    def copy_from(self, other: KVCache, tokens: int) -> bool:
        """Fill this empty cache with the first `tokens` tokens of `other`. Returns False if there are fewer."""
        if tokens > other.length:
            return False
        self.append(other.keys[:, :tokens], other.values[:, :tokens])
        return True

    def _extend(self, count: int) -> None:
        """Count `count` more tokens, which are still to be written."""
        self.make_room(count)
        self.length += count

    def _grow(self, tokens: int) -> None:
        """Resize both buffers or, if there is no memory for that, neither."""
        if tokens > self._reserved:
            raise ValueError(f"{tokens} tokens; {self._reserved} are reserved")
        keys = _resized(self.keys, self.length, self._reserved)
        self.keys, self.values = keys, _resized(self.values, self.length, self._reserved)
        self._note_buffers()

    def _note_buffers(self) -> None:
        """What `place` tells, for each token of each layer."""
        self._at, self._room = (self.keys.data_ptr(), self.values.data_ptr()), self.keys.shape[1]


def _resized(buffer: Tensor, used: int, capacity: int) -> Tensor:
    resized = buffer.new_empty(buffer.shape[0], capacity, buffer.shape[2])
    resized[:, :used] = buffer[:, :used]
    return resized
