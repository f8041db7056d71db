"""Keys and values of one sequence, in buffers that grow by doubling."""

from __future__ import annotations

from torch import Tensor

_FIRST_CAPACITY = 64  # tokens


class KVCache:
    """Implements `model.attention.SequenceCache`."""

    def __init__(self) -> None:
        self._layers: dict[int, _LayerCache] = {}

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add `[heads, n, dim]` of n new tokens; returns views of all so far, `[heads, length, dim]`."""
        cache = self._layers.get(layer)
        if cache is None:
            cache = self._layers[layer] = _LayerCache(key, value)
        return cache.append(key, value)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(cache.keys.nbytes + cache.values.nbytes for cache in self._layers.values())


class _LayerCache:
    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.keys = key.new_empty(key.shape[0], 0, key.shape[2])
        self.values = value.new_empty(value.shape[0], 0, value.shape[2])
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + key.shape[1]
        if end > self.keys.shape[1]:
            capacity = max(_FIRST_CAPACITY, 2 * self.keys.shape[1], end)
            self.keys = _grown(self.keys, self.length, capacity)
            self.values = _grown(self.values, self.length, capacity)
        self.keys[:, self.length : end] = key
        self.values[:, self.length : end] = value
        self.length = end
        return self.keys[:, :end], self.values[:, :end]


def _grown(buffer: Tensor, used: int, capacity: int) -> Tensor:
    grown = buffer.new_empty(buffer.shape[0], capacity, buffer.shape[2])
    grown[:, :used] = buffer[:, :used]
    return grown
