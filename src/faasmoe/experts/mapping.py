"""Read-only tensors over mapped files: no copy, pages shared by every process that maps the same file."""

from __future__ import annotations

import mmap
import os
import warnings
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import ClassVar

import torch

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME
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
        """See `MatrixLocation`: a loaded tensor is in the dtype in which the model computes."""
        return width * prod(self.shape)

    def map(self, dtype: torch.dtype | None = None, read_ahead: bool = False) -> torch.Tensor:
        """See `MatrixLocation`: a mapped view, or a copy if `dtype` is another one."""
        tensor = map_tensor(self, read_ahead)
        return tensor if dtype is None else tensor.to(dtype)

    def __getitem__(self, index: int) -> TensorLocation:
        """The location of one entry along the first dimension."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{index} is not below {self.shape[0]}")
        rest = replace(self, shape=self.shape[1:])
        return replace(rest, offset=self.offset + index * rest.nbytes)


def map_tensor(location: TensorLocation, read_ahead: bool = False) -> torch.Tensor:
    """The tensor at `location`, sharing the file's pages. It must not be written to.

    Only the pages that hold it are mapped, so a process's maps tell which weights it can touch. With
    `read_ahead` the kernel is asked to read them at once, at disk speed. The map lives as long as the tensor.
    Raises `CheckpointChanged` if the file is not the one that was indexed, `CheckpointError` if it cannot be opened or
    is shorter than the location says. Messages name the file without its folder: clients of a server read them.
    """
    dtype, count = BY_NAME[location.dtype], prod(location.shape)
    if count == 0:
        return torch.empty(location.shape, dtype=dtype)
    start = location.offset - location.offset % mmap.ALLOCATIONGRANULARITY
    mapped = _map(location, start)
    if read_ahead:
        mapped.madvise(mmap.MADV_WILLNEED)
    at = location.offset - start
    if location.offset % dtype.itemsize == 0:
        flat = _read_only_view(mapped, dtype, count, at)
    else:  # torch wants aligned views; such files are rare, so copying them is right
        flat = torch.frombuffer(bytearray(mapped[at:]), dtype=dtype, count=count)
    return flat.view(location.shape)


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


def _read_only_view(mapped: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> torch.Tensor:
    with warnings.catch_warnings():  # torch has no read-only tensors and says so; a write would fault
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset)
