"""Operations of torch as steps of `c/dense/steps.c`: those that are rounded exactly, or not, on rows of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faasmoe.experts.arrays import address
from faasmoe.experts.kernels.library import ADDRESS, INT, LIBRARY
from faasmoe.model.dense.replay.operation import ADD, CONVERT, GATHER, MULTIPLY, Operation, Row

_WORDS = 12  # of a `struct step`
_aten: Any = torch.ops.aten
_BOTH = {_aten.add.Tensor: ADD, _aten.mul.Tensor: MULTIPLY}
COPIES = {_aten._to_copy.default, _aten.clone.default}
_FAILURES = {1: MemoryError, 2: IndexError}
_run_steps = LIBRARY.function("run_steps", ADDRESS, INT, result=INT)


def runner(rows: Sequence[Row]) -> Callable[[], None]:
    """What runs the steps.

    It raises `MemoryError` if a linear layer lacks memory for its rows, and `IndexError` for a row that a table lacks.
    """
    table = np.zeros((len(rows), _WORDS), np.int64)
    for line, row in zip(table, rows, strict=True):
        line[: len(row)] = row
    return partial(_run, table, address(table), len(rows))


def _run(table: NDArray[np.int64], at: int, count: int) -> None:  # `table` stays alive with the partial
    if outcome := _run_steps(at, count):
        raise _FAILURES[outcome]("in a list of steps")


def steps_of(operation: Operation) -> list[Row] | None:
    """The steps that do what an operation of torch does, if there are any. Tensors that they take stay alive."""
    (result, *more), function = operation.results, operation.function
    if more or not _ours(result) or not result.is_contiguous():
        return None
    rows: list[Row | None] = [None]
    if function in COPIES:
        rows = [_conversion(operation.arguments[0], result)]
    elif operation.named:
        return None
    elif function is _aten.cat.default:
        rows = _side_by_side(result, *operation.arguments)
    elif function is _aten.embedding.default:
        table, places = operation.arguments[:2]
        rows = [_gathering(table, places, result, wrap=0)]
    elif function is _aten.index.Tensor:
        rows = [_indexing(operation.arguments[0], operation.arguments[1], result)]
    elif function in _BOTH and len(operation.arguments) == 2:
        rows = [_combination(_BOTH[function], operation.arguments, result)]
    steps = [row for row in rows if row is not None]
    return steps if len(steps) == len(rows) else None


def _conversion(x: Tensor, y: Tensor) -> Row | None:
    """`y` has the shape of `x`."""
    lines, its = (_lines(each, y.shape) if _ours(each) else None for each in (x, y))
    if lines is None or its is None or (lines.one and y.numel() > 1 and y.shape[-1] > 1):
        return None
    return CONVERT, x.data_ptr(), y.data_ptr(), *_size(y), lines.apart, its.apart, _wide(x), _wide(y)


def _side_by_side(y: Tensor, parts: Sequence[Tensor], dim: int = 0) -> list[Row | None]:
    sizes = [part.shape[dim] if part.dim() == y.dim() else 0 for part in parts]
    if sum(sizes) != y.shape[dim] or any(part.dtype != y.dtype for part in parts):
        return [None]
    return [_conversion(part, place) for part, place in zip(parts, torch.split(y, sizes, dim), strict=True)]


def _indexing(x: Tensor, indices: Sequence[Tensor | None], y: Tensor) -> Row | None:
    """Rows of the dimension that the last of `indices` is for, where all before it are of one."""
    *before, places = indices
    if any(its is not None for its in before) or set(x.shape[: len(before)]) - {1}:
        return None
    table = x.flatten(0, len(before))
    return _gathering(table, places, y, wrap=len(table)) if places is not None and places.dim() == 1 else None


def _gathering(table: Tensor, places: Tensor, y: Tensor, wrap: int) -> Row | None:
    """Rows `places` of a table, counted from its end if they are below 0 and `wrap` is the number of its rows."""
    fit = table.dtype == y.dtype and places.dtype == torch.int64
    if not fit or not table.is_contiguous() or not places.is_contiguous():
        return None
    width = table[0].nbytes if len(table) else 0
    if places.numel() * width != y.nbytes:
        return None
    return GATHER, table.data_ptr(), places.data_ptr(), y.data_ptr(), places.numel(), width, len(table), wrap


def _combination(what: int, operands: Sequence[object], y: Tensor) -> Row | None:
    both = [its for each in operands if (its := _operand(each, y.dtype)) is not None]
    lines = [found for each in both if (found := _lines(each, y.shape)) is not None]
    if len(lines) != 2:
        return None
    (a, b), (first, second) = both, lines
    places = a.data_ptr(), b.data_ptr(), y.data_ptr()
    return what, *places, *_size(y), _wide(y), first.apart, second.apart, int(first.one), int(second.one)


def _operand(value: object, dtype: torch.dtype) -> Tensor | None:
    """A tensor of this dtype, or a number that torch rounds to it or that need not be rounded."""
    if isinstance(value, Tensor):
        return value if value.dtype == dtype else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    constant = _constant(float(value), dtype)
    return constant if constant.float() == _constant(float(value), torch.float32) else None


@cache
def _constant(value: float, dtype: torch.dtype) -> Tensor:  # stays alive
    return torch.tensor(value, dtype=dtype)


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
