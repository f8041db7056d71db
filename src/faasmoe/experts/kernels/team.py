"""Several threads that share one group of linear layers after the other.

A group takes less than a millisecond, about what it takes to wake a thread twice. So the helpers look for work in
compiled code, without Python's lock, for a moment after each group (`_SPINS`), and sleep only then or when they are
told to: between two layers of one step they are awake, while experts run elsewhere they leave their cores to them.
They never return to Python: a helper that waits for its lock would keep it from the leader when it has to wait for
a core. Work is claimed in pieces, so that a helper that wakes late or loses its core is not waited for.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from faasmoe.experts.kernels import layers as of
from faasmoe.experts.kernels import matvec, packing
from faasmoe.experts.kernels.compiled import compiled, pointer
from faasmoe.experts.kernels.layers import Layers

_SPINS = 2_000_000  # looks for work before a helper sleeps, about a millisecond
_MOST_THREADS = 16

# The board, int64: the number of the job that is open (0: none, `_REST`: none will be soon), how many helpers are at
# it, the piece to claim next, how many helpers sleep or are about to, the semaphore (of C's library) on which they do,
# and the job. The first five have cache lines of their own.
_OPEN, _INSIDE, _NEXT, _SLEEPING, _ALARM, _JOB = 0, 8, 16, 24, 32, 40
_REST = -1
_FIELDS = 7  # of a job: x, y, the layers' table, layers, rows, ins, pieces
_WORD = ir.IntType(64)


def _atomic(operation: str) -> Any:
    """`(address, value)`: one atomic operation on the int64 there; returns what it was before."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw(operation, address, arguments[1], "seq_cst")

    def atomic(_context: Any, address: Any, value: Any) -> Any:
        return types.intp(types.intp, types.intp), generate

    return intrinsic(atomic)


_ADD, _SET = _atomic("add"), _atomic("xchg")


@intrinsic
def _load(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), "seq_cst", 8)

    return types.intp(types.intp), generate


def _semaphore(name: str) -> Any:
    """`(address)`: a function of C's library on the semaphore there; returns what it returns."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), [place]), name)
        return builder.call(function, [builder.inttoptr(arguments[0], place)])

    def call(_context: Any, address: Any) -> Any:
        return types.int32(types.intp), generate

    return intrinsic(call)


_POST, _WAIT = _semaphore("sem_post"), _semaphore("sem_wait")


@compiled
def _take_pieces(board: Any) -> None:
    """Run pieces of the job on the board until all are claimed."""
    x, y, at, count, rows, ins, pieces = board[_JOB : _JOB + _FIELDS]
    table = carray(pointer(at), (count, of.COLUMNS), np.int64)
    claim = board.ctypes.data + 8 * _NEXT
    number, layer = _ADD(claim, 1), 0
    while number < pieces:
        while layer + 1 < count and number >= table[layer + 1, of.FIRST_PIECE]:
            layer += 1
        w, scale, bias, outs, before, first_piece, piece = table[layer]
        first = (number - first_piece) * piece
        to = y + 2 * rows * before
        matvec.linear_part(x, w, scale, bias, to, rows, outs, ins, first, min(first + piece, outs))
        number = _ADD(claim, 1)


@compiled
def _help(board: Any, spins: int) -> None:
    """Take part in every job, without end; sleep if no job opens for `spins` looks. Returns at once if that is 0."""
    at = board.ctypes.data
    left, seen = spins, 0
    while spins:
        job = _load(at + 8 * _OPEN)
        if job > 0 and job != seen:
            _ADD(at + 8 * _INSIDE, 1)
            if _load(at + 8 * _OPEN) == job:  # else it has closed in the meantime, and another may be written
                _take_pieces(board)
            _ADD(at + 8 * _INSIDE, -1)
            seen, left = job, spins
        elif job != _REST and left > 0:
            left -= 1
        else:
            _ADD(at + 8 * _SLEEPING, 1)
            job = _load(at + 8 * _OPEN)
            if job <= 0 or job == seen:  # a job that opens after this look finds us counted
                _WAIT(at + 8 * _ALARM)
            left = spins


@compiled
def _lead(board: Any, number: int, x: int, unpacked: Any, y: int, table: Any, pieces: int, int8: int) -> None:
    """Run the job of this number with all helpers; with none if it is 0.

    `x` and `y` are addresses of bfloat16 `[rows, ins]` and, layer after layer, `[rows, outs]`; `unpacked` is room for
    x in float32.
    """
    rows, ins = unpacked.shape
    at = board.ctypes.data
    packing.unpack(x, unpacked, int8)
    board[_JOB] = unpacked.ctypes.data
    board[_JOB + 1] = y
    board[_JOB + 2] = table.ctypes.data
    board[_JOB + 3] = len(table)
    board[_JOB + 4] = rows
    board[_JOB + 5] = ins
    board[_JOB + 6] = pieces
    _SET(at + 8 * _NEXT, 0)
    if number:
        _SET(at + 8 * _OPEN, number)
        for _ in range(_SET(at + 8 * _SLEEPING, 0)):
            _POST(at + 8 * _ALARM)
    _take_pieces(board)
    if number:
        _SET(at + 8 * _OPEN, 0)
        while _load(at + 8 * _INSIDE) > 0:
            pass


class Team:
    """The thread that calls `run`, and its helpers. One call at a time."""

    def __init__(self, threads: int) -> None:
        """`threads` counts the caller's as well. Helpers are there until the process ends."""
        self._board = np.zeros(_JOB + _FIELDS, np.int64)  # zeros are a semaphore of 0
        _help(self._board, 0)  # compiled, or read from where numba keeps it, before anybody waits
        self._jobs = 0
        self._turn = threading.Lock()
        self._helpers = min(threads, _MOST_THREADS) - 1
        self._unpacked = np.empty(0, np.float32)
        for number in range(self._helpers):
            arguments = (self._board, _SPINS)
            threading.Thread(target=_help, args=arguments, name=f"linear-{number}", daemon=True).start()

    def run(self, layers: Layers, x: Tensor, *, alone: bool = False) -> list[Tensor]:
        """`x` `[n, in]` bfloat16 to `[n, out]` of each layer: the bits of `matvec.linear_rows`.

        Helpers that rest, and all if `alone`, leave it to the caller's thread. Raises `ValueError` for an `x` of
        another type or width.
        """
        if x.dtype != torch.bfloat16 or x.dim() != 2 or x.shape[1] != layers.ins:
            raise ValueError(f"no kernel for {x.dtype} {tuple(x.shape)} by layers of {layers.ins} columns")
        rows, x = len(x), x.contiguous()
        y = torch.empty(rows * sum(layers.outs), dtype=torch.bfloat16)
        with self._turn:
            if self._unpacked.size < rows * layers.ins:
                self._unpacked = np.empty(rows * layers.ins, np.float32)
            unpacked = self._unpacked[: rows * layers.ins].reshape(rows, layers.ins)
            number = 0
            if self._helpers and not alone:
                number = self._jobs = self._jobs + 1
            _lead(
                self._board,
                number,
                x.data_ptr(),
                unpacked,
                y.data_ptr(),
                layers.table,
                layers.pieces,
                int(layers.int8),
            )
        if len(layers.outs) == 1:
            return [y.view(rows, -1)]
        parts = torch.split(y, [rows * outs for outs in layers.outs])
        return [part.view(rows, outs) for part, outs in zip(parts, layers.outs, strict=True)]

    def rest(self) -> None:
        """Send the helpers to sleep until the next layers, because experts need the cores."""
        with self._turn:
            self._board[_OPEN] = _REST
