"""Operations of torch as steps of `c/dense/steps.c`: those that are rounded exactly, on rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, BOOL, INT, LIBRARY
from faasmoe.model.dense.replay.operation import ADD, CONVERT, MULTIPLY, Operation, Row

_WORDS = 12  # of a `struct step`
_aten: Any = torch.ops.aten
_BOTH = {_aten.add.Tensor: ADD, _aten.mul.Tensor: MULTIPLY}
COPIES = {_aten._to_copy.default, _aten.clone.default}
_run_steps = LIBRARY.function("run_steps", ADDRESS, INT, result=BOOL)


def runner(rows: Sequence[Row]) -> Callable[[], None]:
    """What runs the steps. Raises `MemoryError` then if there is none for one of them."""
    table = np.zeros((len(rows), _WORDS), np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return partial(_run, table, address(table), len(rows))


def _run(table: NDArray[np.int64], at: int, count: int) -> None:  # `table` stays alive with the partial
    if not _run_steps(at, count):
        raise MemoryError("for the rows of a linear layer")


def step_of(operation: Operation) -> Row | None:
    """The step that does what an operation of torch does, if there is one."""
    (result, *more), function = operation.results, operation.function
    if more or not _ours(result) or not result.is_contiguous():
        return None
    if function in COPIES:
        return _conversion(operation.arguments[0], result)
    if function in _BOTH and not operation.named and len(operation.arguments) == 2:
        return _combination(_BOTH[function], operation.arguments, result)
    return None


def _conversion(x: Tensor, y: Tensor) -> Row | None:
    """`y` has the shape of `x`, and is contiguous."""
    lines = _lines(x, y.shape) if _ours(x) else None
    if lines is None or (lines.one and y.shape[-1] > 1):
        return None
    return CONVERT, x.data_ptr(), y.data_ptr(), *_size(y), lines.apart, _wide(x), _wide(y)


def _combination(what: int, operands: Sequence[object], y: Tensor) -> Row | None:
    both = [each for each in operands if isinstance(each, Tensor) and each.dtype == y.dtype]
    lines = [its for each in both if (its := _lines(each, y.shape)) is not None]
    if len(lines) != 2:
        return None
    (a, b), (first, second) = both, lines
    places = a.data_ptr(), b.data_ptr(), y.data_ptr()
    return what, *places, *_size(y), _wide(y), first.apart, second.apart, int(first.one), int(second.one)


def _size(y: Tensor) -> tuple[int, int]:
    """Rows and numbers of a row."""
    width = y.shape[-1] if y.dim() else 1
    return y.numel() // width, width


def _wide(tensor: Tensor) -> int:
    return int(tensor.dtype == torch.float32)


def _ours(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.bfloat16) and tensor.numel() > 0


class _Lines(NamedTuple):
    apart: int  # numbers between two rows
    one: bool  # a row is one number


def _lines(tensor: Tensor, shape: Sequence[int]) -> _Lines | None:
    """How rows of a tensor that is broadcast to `shape` lie; None if they or their numbers are in no such order."""
    its = tensor.expand(*shape)
    if its.dim() == 0:
        return _Lines(0, True)
    if shape[-1] > 1 and its.stride(-1) not in (0, 1):
        return None
    one = shape[-1] == 1 or its.stride(-1) == 0
    outer = [(n, stride) for n, stride in zip(shape[:-1], its.stride()[:-1], strict=True) if n > 1]
    if any(stride != n * inner for (_, stride), (n, inner) in pairwise(outer)):
        return None
    return _Lines(outer[-1][1] if outer else 0, one)
