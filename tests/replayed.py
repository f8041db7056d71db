"""Calls of kernels that other processes repeat (`replay.c`): with another C library, or on another CPU."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from faasmoe.experts.arrays import address
from faasmoe.experts.formats.registry import addresses
from faasmoe.experts.kernels.library import Library

_AT = 1 << 44  # an address that no process uses by itself
_BYTES = 8 << 20
_NO_OTHER = 0x100000  # MAP_FIXED_NOREPLACE of mmap(2), which Python does not name
_ALIGNED = 64  # bytes
RESULT = "result"  # as an argument: what the call before gave


class _Call(NamedTuple):
    function: str
    arguments: tuple[int | str, ...]


class Replayed:
    """Calls, and the memory that they read and write, which lies at the same address wherever they are made."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_OTHER
        if libc.mmap(_AT, _BYTES, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) != _AT:
            raise OSError(ctypes.get_errno(), f"no memory at {_AT:#x}")
        self._libc = libc
        self._memory = np.ctypeslib.as_array((ctypes.c_uint8 * _BYTES).from_address(_AT))
        self._used = 0
        self._calls: list[_Call] = []
        self._results: dict[str, NDArray[Any]] = {}

    def close(self) -> None:
        """Give the memory back. Its arrays are gone then."""
        self._libc.munmap(ctypes.c_void_p(_AT), ctypes.c_size_t(_BYTES))

    def place(self, array: NDArray[Any]) -> NDArray[Any]:
        """A copy of an array in the memory."""
        begin = self._used
        self._used = begin + -(-array.nbytes // _ALIGNED) * _ALIGNED
        placed: NDArray[Any] = self._memory[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    def result(self, name: str, shape: tuple[int, ...], dtype: Any) -> int:
        """The address of an array that calls write to: zeros before. No two have one name."""
        assert name not in self._results
        self._results[name] = self.place(np.zeros(shape, dtype))
        return address(self._results[name])

    def matrix(self, matrix: Any) -> tuple[int, int, int]:
        """Where kernels find a weight of any format, and its format: arrays and struct are placed in the memory."""
        if isinstance(matrix, np.ndarray):
            found = addresses(self.place(matrix))
        else:
            arrays = {each.name: getattr(matrix, each.name) for each in fields(matrix)}
            placed = {name: self.place(its) for name, its in arrays.items() if isinstance(its, np.ndarray)}
            matrix = replace(matrix, **placed)
            found = addresses(matrix)
        assert found is not None
        struct = getattr(matrix, "kernel_scales", None)
        return found.weights, self.struct(struct) if struct else found.scales, found.format

    def struct(self, struct: ctypes.Structure) -> int:
        """The address of a copy."""
        return address(self.place(np.frombuffer(bytes(struct), np.uint8)))

    def call(self, function: str, *arguments: int | str) -> None:
        """Have a C function called, with whole numbers and addresses."""
        self._calls.append(_Call(function, arguments))

    def here(self, instruction_set: str) -> dict[str, NDArray[Any]]:
        """The results of this process with the kernels of an instruction set."""
        library = Library(instruction_set)
        last = 0
        for name, arguments in self._calls:
            function = library.function(name, *[ctypes.c_int64] * len(arguments), result=ctypes.c_int64)
            last = function(*(last if each == RESULT else each for each in arguments))
        return self._taken()

    def elsewhere(self, command: Sequence[str | Path], kernels: Path, folder: Path) -> dict[str, NDArray[Any]]:
        """The results of `replay`, which `command` starts, with the kernels of a shared object."""
        memory = folder / "memory"
        memory.write_bytes(self._memory[: self._used].tobytes())
        calls = "".join(f"{name} {' '.join(map(str, arguments))}\n" for name, arguments in self._calls)
        done = subprocess.run(
            [*command, kernels, memory, str(_AT)],
            input=calls,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == len(self._calls)
        self._memory[: self._used] = np.frombuffer(memory.read_bytes(), np.uint8)
        return self._taken()

    def _taken(self) -> dict[str, NDArray[Any]]:
        found = {name: each.copy() for name, each in self._results.items()}
        for each in self._results.values():
            each[...] = 0
        return found
