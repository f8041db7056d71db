"""Read-only arrays over mapped files: no copy, pages shared by every process that maps the same file."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME, converted, fits
from faasmoe.experts.file_state import FileState, changed, open_regular


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """The location of a tensor's bytes: a row-major array in a file, from `offset` on.

    `state` is that of the file that was indexed; None if the file has not been written yet. It is also the
    `MatrixLocation` (`formats.base`) of a weight that is not quantised.
    """

    format: ClassVar[str] = "dense"

    file: Path
    offset: int
    dtype: str  # as in `experts.dtypes`
    shape: tuple[int, ...]
    state: FileState | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * BY_NAME[self.dtype].itemsize

    @property
    def parts(self) -> tuple[TensorLocation, ...]:
        """See `MatrixLocation`."""
        return (self,)

    def memory(self, width: int) -> int:
        """See `MatrixLocation`: numbers that are narrower than those in which the model computes stay as they are."""
        return min(width, BY_NAME[self.dtype].itemsize) * prod(self.shape)

    def map(self, dtype: str | None = None, read_ahead: bool = False) -> NDArray[Any]:
        """See `MatrixLocation`: a mapped view, or a rounded copy if numbers of `dtype` cannot be all that are there."""
        array = map_array(self, read_ahead)
        return array if dtype is None or fits(self.dtype, dtype) else converted(array, dtype)

    def __getitem__(self, index: int) -> TensorLocation:
        """The location of one entry along the first dimension."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{index} is not below {self.shape[0]}")
        rest = replace(self, shape=self.shape[1:])
        return replace(rest, offset=self.offset + index * rest.nbytes)


def map_array(location: TensorLocation, read_ahead: bool = False) -> NDArray[Any]:
    """The array at `location`, read-only, sharing the file's pages; bits in an integer for what numpy does not have.

    Only the pages that hold it are mapped, so a process's maps tell which weights it can touch. With
    `read_ahead` the kernel is asked to read them at once, at disk speed. The map lives as long as the array.
    Raises `CheckpointChanged` if the file is not the one that was indexed, `CheckpointError` if it cannot be opened or
    is shorter than the location says. Messages name the file without its folder: clients of a server read them.
    """
    dtype, count = BY_NAME[location.dtype], prod(location.shape)
    if count == 0:
        return np.empty(location.shape, dtype)
    start = location.offset - location.offset % mmap.ALLOCATIONGRANULARITY
    mapped = _map(location, start)
    if read_ahead:
        mapped.madvise(mmap.MADV_WILLNEED)
    at = location.offset - start
    if location.offset % dtype.itemsize == 0:
        flat = np.frombuffer(mapped, dtype, count, at)
    else:  # kernels read aligned numbers; such files are rare, so copying them is right
        flat = np.frombuffer(mapped[at:], dtype, count)
    return flat.reshape(location.shape)


def _map(location: TensorLocation, start: int) -> mmap.mmap:
    end, name = location.offset + location.nbytes, location.file.name
    try:
        fd, state = open_regular(location.file)
    except FileNotFoundError:
        raise changed(location.file, "was removed") from None
    except OSError as error:
        raise CheckpointError(f"cannot open {name}: {error.strerror}") from error
    try:
        if location.state and (what := location.state.difference(state)):
            raise changed(location.file, what)
        if end > state.size:
            raise CheckpointError(f"{name} has {state.size} bytes, but a tensor in it should end at byte {end}")
        return mmap.mmap(fd, end - start, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=start)
    finally:
        os.close(fd)
