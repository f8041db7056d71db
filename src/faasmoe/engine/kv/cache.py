"""Keys and values of one sequence: for each layer a buffer that is contiguous in memory."""

from __future__ import annotations

from torch import Tensor

from faasmoe.model.dense.decode_kernel import Place

_FIRST_CAPACITY = 64  # tokens


class KVCache:
    """Implements `model.dense.attention.SequenceCache`.

    Its buffers grow by themselves, to twice their size, unless `reserve` has said what they may have.
    """

    def __init__(self) -> None:
        self._layers: dict[int, _LayerCache] = {}
        self._capacity = 0  # tokens; 0: nobody has said

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add `[heads, n, dim]` of n new tokens; returns views of all so far, `[heads, length, dim]`.

        Raises `ValueError` for more than `reserve` has said.
        """
        return self._extended(layer, key, value, key.shape[1]).write(key, value)

    def place(self, layer: int, key: Tensor, value: Tensor) -> Place:
        """Count one more token and tell where to write it. `key` and `value` `[heads, ..., dim]` are examples.

        Raises `ValueError` as `append` does.
        """
        cache = self._extended(layer, key, value, 1)
        return cache.keys.data_ptr(), cache.values.data_ptr(), cache.capacity, cache.length

    def _extended(self, layer: int, key: Tensor, value: Tensor, count: int) -> _LayerCache:
        """The layer's cache, with `count` more tokens that are still to be written."""
        cache = self._layers.get(layer)
        if cache is None:
            cache = self._layers[layer] = _LayerCache(key, value)
        end = cache.length + count
        if end > cache.capacity:
            cache.resize(self._room_for(end, cache.capacity))
        cache.length = end
        return cache

    def reserve(self, tokens: int) -> None:
        """Have memory for `tokens` tokens in every layer, and no more, when the model adds tokens that need it.

        Layer by layer: one exists twice. A step for which there is no memory fails, and nothing else does.
        """
        self._capacity = tokens

    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens."""
        for cache in self._layers.values():
            cache.length = tokens

    def copy_from(self, other: KVCache, tokens: int) -> None:
        """Begin with the first `tokens` tokens of `other`. For a cache that is empty and has memory for them."""
        for layer, source in other._layers.items():
            self.append(layer, source.keys[:, :tokens], source.values[:, :tokens])

    def _room_for(self, tokens: int, capacity: int) -> int:
        if not self._capacity:
            return max(_FIRST_CAPACITY, 2 * capacity, tokens)
        if tokens > self._capacity:
            raise ValueError(f"{tokens} tokens; {self._capacity} are reserved")
        return self._capacity

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(cache.keys.nbytes + cache.values.nbytes for cache in self._layers.values())


class _LayerCache:
    """`keys` and `values` `[heads, capacity, dim]`, of which the first `length` tokens are in use."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.keys = key.new_empty(key.shape[0], 0, key.shape[2])
        self.values = value.new_empty(value.shape[0], 0, value.shape[2])
        self.length = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    def resize(self, capacity: int) -> None:
        """Both or, if there is no memory for that, neither."""
        keys = _resized(self.keys, self.length, capacity)
        self.keys, self.values = keys, _resized(self.values, self.length, capacity)

    def write(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The last tokens. Returns views of all."""
        start, end = self.length - key.shape[1], self.length
        self.keys[:, start:end] = key
        self.values[:, start:end] = value
        return self.keys[:, :end], self.values[:, :end]


def _resized(buffer: Tensor, used: int, capacity: int) -> Tensor:
    resized = buffer.new_empty(buffer.shape[0], capacity, buffer.shape[2])
    resized[:, :used] = buffer[:, :used]
    return resized
