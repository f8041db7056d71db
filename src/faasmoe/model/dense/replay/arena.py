"""Memory for what operations compute, used again for what comes after the last that reads it."""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from faasmoe.model.dense.replay.operation import Operation

_ALIGNED = 64  # bytes, as torch allocates: some of its kernels take numbers up to there apart


@dataclass(slots=True)
class Buffer:
    """Memory that an operation allocated: `first` wrote it and `last` read it, by their numbers in the list."""

    nbytes: int
    first: int
    last: int
    offset: int = 0


class Arena:
    """The buffers of a list of operations, in one piece of memory."""

    def __init__(self, operations: Sequence[Operation], foreign: Sequence[Tensor], result: Tensor) -> None:
        """`foreign` tensors keep their memory, as those that no operation has allocated do. `result` lives on."""
        self._buffers: dict[int, Buffer] = {}
        seen = {_storage(tensor) for tensor in foreign}
        for number, operation in enumerate(operations):
            for part in (*operation.beside, operation):
                for key in map(_storage, part.taken()):
                    if key in self._buffers:
                        self._buffers[key].last = number
                    else:
                        seen.add(key)
                for tensor in part.results:
                    key = _storage(tensor)
                    if key in self._buffers:
                        self._buffers[key].last = number
                    elif key not in seen:
                        self._buffers[key] = Buffer(tensor.untyped_storage().nbytes(), number, number)
        if (kept := self._buffers.get(_storage(result))) is not None:
            kept.last = len(operations)
        self.nbytes = _place(list(self._buffers.values()))
        self._memory: Tensor | None = None

    def lie_in(self, memory: Tensor) -> None:
        """Use `memory` `[nbytes]` uint8, or more of it."""
        self._memory = memory

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is in one of the buffers."""
        return _storage(tensor) in self._buffers

    def tensor(self, tensor: Tensor) -> Tensor:
        """Where the numbers of a tensor of the operations are from now on."""
        buffer = self._buffers.get(_storage(tensor))
        if buffer is None or self._memory is None:
            return tensor
        its = self._memory[buffer.offset : buffer.offset + buffer.nbytes].view(tensor.dtype)
        return its.as_strided(tensor.shape, tensor.stride(), its.storage_offset() + tensor.storage_offset())


def _storage(tensor: Tensor) -> int:
    """The same for tensors that share memory. Tensors without numbers share theirs, which nobody reads."""
    return tensor.untyped_storage().data_ptr()


def _place(buffers: Sequence[Buffer]) -> int:
    """Give each the lowest place that is free while it lives. Returns bytes of all."""
    alive: list[Buffer] = []  # by offset
    for buffer in buffers:  # by `first`
        alive = [each for each in alive if each.last >= buffer.first]
        for other in alive:
            if buffer.offset + buffer.nbytes <= other.offset:
                break
            buffer.offset = max(buffer.offset, -(-(other.offset + other.nbytes) // _ALIGNED) * _ALIGNED)
        insort(alive, buffer, key=lambda each: each.offset)
    return max((each.offset + each.nbytes for each in buffers), default=0)
