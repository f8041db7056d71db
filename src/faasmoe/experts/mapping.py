"""Read-only tensors over mapped files: no copy, pages shared by every process that maps the same file."""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from faasmoe.errors import CheckpointError
from faasmoe.experts.dtypes import BY_NAME


@dataclass(frozen=True, slots=True)
class TensorLocation:
    """Where a tensor's bytes lie: a row-major array in a file, from `offset` on."""

    file: Path
    offset: int
    dtype: str  # as in `experts.dtypes`
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * BY_NAME[self.dtype].itemsize

    def __getitem__(self, index: int) -> TensorLocation:
        """The location of one entry along the first dimension."""
        if not 0 <= index < self.shape[0]:
            raise IndexError(f"{index} is not below {self.shape[0]}")
        rest = TensorLocation(self.file, self.offset, self.dtype, self.shape[1:])
        return TensorLocation(self.file, self.offset + index * rest.nbytes, self.dtype, self.shape[1:])


class FileMaps:
    """Maps files once each and hands out tensors over them.

    The maps live as long as a tensor over them does.
    """

    def __init__(self) -> None:
        self._maps: dict[Path, mmap.mmap] = {}

    def tensor(self, location: TensorLocation) -> torch.Tensor:
        """The tensor at `location`, sharing the file's pages. It must not be written to.

        Raises `CheckpointError` if the file is gone or shorter than the location says.
        """
        dtype = BY_NAME[location.dtype]
        mapped = self._map(location.file)
        if location.offset + location.nbytes > len(mapped):
            raise CheckpointError(
                f"{location.file} has {len(mapped)} bytes, but a tensor in it should end at byte "
                f"{location.offset + location.nbytes}: the file was cut short after it was indexed"
            )
        if location.nbytes == 0:
            return torch.empty(location.shape, dtype=dtype)
        count = prod(location.shape)
        if location.offset % dtype.itemsize == 0:
            flat = _read_only_view(mapped, dtype, count, location.offset)
        else:  # torch wants aligned views; such files are rare, so copying them is right
            piece = mapped[location.offset : location.offset + location.nbytes]
            flat = torch.frombuffer(bytearray(piece), dtype=dtype, count=count)
        return flat.view(location.shape)

    def will_need(self, locations: Sequence[TensorLocation]) -> None:
        """Ask the kernel to read the bytes of `locations` ahead, at disk speed."""
        for location in locations:
            start = location.offset - location.offset % mmap.PAGESIZE
            length = location.offset + location.nbytes - start
            self._map(location.file).madvise(mmap.MADV_WILLNEED, start, length)

    def _map(self, file: Path) -> mmap.mmap:
        if file not in self._maps:
            try:
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CheckpointError(f"cannot open {file}: {error.strerror}") from error
            try:
                self._maps[file] = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            finally:
                os.close(fd)
        return self._maps[file]


def _read_only_view(mapped: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> torch.Tensor:
    with warnings.catch_warnings():  # torch has no read-only tensors and says so; a write would fault
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset)
