"""Several threads that share one linear layer after the other.

A layer takes less than a millisecond, about what it takes to wake a thread twice. So the helpers look for work in
compiled code, without Python's lock, for a moment after each layer (`_SPINS`), and sleep only then or when they are
told to: between two layers of one step they are awake, while experts run elsewhere they leave their cores to them.
Work is claimed in pieces, so that a helper that wakes late or loses its core is not waited for.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from faasmoe.experts import matvec
from faasmoe.experts.int8 import Matrix
from faasmoe.experts.matvec import compiled

_SPINS = 1_000_000  # looks for work before a helper sleeps, about half a millisecond
_PIECE_BYTES = 256 << 10  # of weights: long enough to stream, short enough to share
_MOST_THREADS = 16

# The board, int64: the number of the job that is open (0: none, `_REST`: none will be soon), how many helpers are at
# it, the piece to claim next, and the job. The first three are on cache lines of their own.
_OPEN, _INSIDE, _NEXT, _JOB = 0, 8, 16, 24
_REST = -1
_FIELDS = 10  # of a job: x, w, scale, bias, y, rows, outs, ins, outs a piece, pieces
_WORD = ir.IntType(64)


def _atomic(operation: str) -> Any:
    """`(address, value)`: one atomic operation on the int64 there; returns what it was before."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _WORD.as_pointer())
        return builder.atomic_rmw(operation, pointer, arguments[1], "seq_cst")

    def atomic(_context: Any, address: Any, value: Any) -> Any:
        return types.intp(types.intp, types.intp), generate

    return intrinsic(atomic)


_ADD, _SET = _atomic("add"), _atomic("xchg")


@intrinsic
def _load(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(arguments[0], _WORD.as_pointer()), "seq_cst", 8)

    return types.intp(types.intp), generate


@compiled
def _take_pieces(board: Any) -> None:
    """Run pieces of the job on the board until all are claimed."""
    x, w, scale, bias, y, rows, outs, ins, piece, pieces = board[_JOB : _JOB + _FIELDS]
    claim = board.ctypes.data + 8 * _NEXT
    number = _ADD(claim, 1)
    while number < pieces:
        first = number * piece
        matvec.linear_part(x, w, scale, bias, y, rows, outs, ins, first, min(first + piece, outs))
        number = _ADD(claim, 1)


@compiled
def _help(board: Any, seen: int, spins: int) -> int:
    """Take part in every job that opens, until none has for `spins` looks. Returns the last one seen."""
    at = board.ctypes.data
    left = spins
    while left > 0:
        job = _load(at + 8 * _OPEN)
        if job == _REST:
            break
        if job in (0, seen):
            left -= 1
            continue
        _ADD(at + 8 * _INSIDE, 1)
        if _load(at + 8 * _OPEN) == job:  # else it has closed in the meantime, and another may be written
            _take_pieces(board)
        _ADD(at + 8 * _INSIDE, -1)
        seen, left = job, spins
    return seen


@compiled
def _lead(board: Any) -> None:
    """Take part in the open job, close it, and wait for the helpers that are still at a piece of it."""
    _take_pieces(board)
    at = board.ctypes.data
    _SET(at + 8 * _OPEN, 0)
    while _load(at + 8 * _INSIDE) > 0:
        pass


@compiled
def _open(board: Any, number: int) -> None:
    at = board.ctypes.data
    _SET(at + 8 * _NEXT, 0)
    _SET(at + 8 * _OPEN, number)


class Team:
    """The thread that calls `linear`, and its helpers. One call at a time."""

    def __init__(self, threads: int) -> None:
        """`threads` counts the caller's as well."""
        self._board = np.zeros(_JOB + _FIELDS, np.int64)
        _help(self._board, 0, 0)  # compiled, or read from where numba keeps it, before anybody waits
        self._jobs = 0
        self._turn = threading.Lock()
        self._asleep: set[int] = set()  # helpers; changed with Python's lock held
        self._alarms = [threading.Semaphore(0) for _ in range(min(threads, _MOST_THREADS) - 1)]
        for number in range(len(self._alarms)):
            threading.Thread(target=self._work, args=(number,), name=f"linear-{number}", daemon=True).start()

    def linear(self, x: Tensor, weight: Matrix, bias: Tensor | None = None) -> Tensor:
        """As `matvec.linear_rows`, by all threads; the same bits."""
        operands = matvec.Operands(x, weight, bias)
        line = operands.ins if operands.scale else 2 * operands.ins  # bytes
        piece = max(16, _PIECE_BYTES // line // 16 * 16)
        with self._turn:
            operands.unpack()
            self._board[_JOB : _JOB + _FIELDS] = (*operands.job, piece, -(-operands.outs // piece))
            self._jobs += 1
            _open(self._board, self._jobs)
            while self._asleep:
                self._alarms[self._asleep.pop()].release()
            _lead(self._board)
        return operands.y

    def rest(self) -> None:
        """Send the helpers to sleep until the next layer: somebody else needs their cores now."""
        with self._turn:
            self._board[_OPEN] = _REST

    def _work(self, number: int) -> None:
        seen = 0
        while True:
            seen = _help(self._board, seen, _SPINS)
            self._asleep.add(number)
            if (
                self._board[_OPEN] not in (0, seen, _REST) and number in self._asleep
            ):  # opened before we were asleep
                self._asleep.discard(number)
                continue
            self._alarms[number].acquire()
