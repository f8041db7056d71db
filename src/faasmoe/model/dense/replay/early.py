"""Linear layers beside a boundary that begin before it: helpers are at them while the caller computes what it is given.

A router and the sending of calls read little memory and take time, in which helpers would have nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from faasmoe.model.dense.replay.operation import Boundary, Kernel, Operation


def begun_early(operations: Sequence[Operation]) -> list[Operation]:
    """`operations` with the first layers beside each boundary in two: they begin as soon as their rows are computed."""
    done: list[Operation] = []
    for operation in operations:
        begin, beside = _in_two(operation.beside)
        if begin is None:
            done.append(operation)
        else:
            done.insert(_place(done, begin.taken()), begin)
            done.append(replace(operation, beside=beside))
    return done


def _in_two(beside: Sequence[Operation]) -> tuple[Operation | None, list[Operation]]:
    """What begins the first layers, and the operations with what ends them in their place."""
    for at, operation in enumerate(beside):
        if not computes(operation):
            continue
        kernel = operation.function
        if not isinstance(kernel, Kernel) or (both := kernel.in_two()) is None:
            break
        begin = replace(operation, function=both[0])
        end = replace(operation, function=both[1], arguments=(*operation.arguments, *operation.results))
        return begin, [*beside[:at], end, *beside[at + 1 :]]
    return None, list(beside)


def _place(before: Sequence[Operation], rows: Sequence[Tensor]) -> int:
    """Behind the last that has written to any of `rows`."""
    theirs = {each.untyped_storage().data_ptr() for each in rows}
    for at in range(len(before), 0, -1):
        operation = before[at - 1]
        written = {each.untyped_storage().data_ptr() for each in operation.results}
        if written & theirs and computes(operation):
            return at
    return 0


def computes(operation: Operation) -> bool:
    """Whether an operation does more than to name memory."""
    function = operation.function
    if isinstance(function, Kernel | Boundary) or function._schema.is_mutable:
        return True
    theirs = {each.untyped_storage().data_ptr() for each in operation.taken()}
    return any(each.untyped_storage().data_ptr() not in theirs for each in operation.results)
