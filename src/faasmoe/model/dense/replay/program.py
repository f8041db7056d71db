"""Operations that were recorded, on memory of their own, as few calls as they can be run by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from faasmoe.model.dense.replay.arena import Arena
from faasmoe.model.dense.replay.early import begun_early, computes
from faasmoe.model.dense.replay.operation import TEAM_END, TEAM_RUN, Boundary, Kernel, Operation, Row, mapped
from faasmoe.model.dense.replay.steps import COPIES, runner, steps_of

_aten = torch.ops.aten
_EMPTY = {
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_strided.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
}  # which leave memory as it is

Action = Callable[[], None]
Answer = tuple[list[Tensor], Tensor]
"""What a boundary was given in a step, and what it returned."""


class NotRecorded(ValueError):
    """Operations that cannot be run from a list."""


class RunMode(Enum):
    """How operations are run."""

    WHOLE = auto()  # as few calls as possible
    APART = auto()  # with boundaries that are calls of their own
    ALONE = auto()  # beside a boundary, with linear layers on the calling thread


@dataclass(frozen=True, slots=True)
class _Bound:
    """A boundary on memory of the program."""

    tensors: list[Tensor]
    result: Tensor
    run: Action
    after: Action  # what it runs beside


class Program:
    """A step's operations. Runs on one thread at a time."""

    def __init__(
        self, operations: Sequence[Operation], inputs: Sequence[Tensor], result: Tensor, memory: ProgramMemory
    ) -> None:
        """`inputs` are filled in before each run, and `result` is valid until another program runs in `memory`.

        Raises `NotRecorded` for operations that cannot be run from a list.
        """
        self.inputs = inputs
        operations = begun_early(operations)
        self._arena = Arena(operations, inputs, result)
        self._arena.lie_in(memory.of(self._arena.nbytes))
        self.result = self._arena.tensor(result)
        self._kept: list[Tensor] = []  # that steps read, beside those in the arena
        self._bound: list[_Bound] = []
        self._prepare: list[Action] = []
        self._actions = self._segment(operations, how=RunMode.WHOLE)
        self._checked: list[Action] | None = self._segment(operations, how=RunMode.APART)  # until it has been

    @property
    def checked(self) -> bool:
        """Whether it agreed with a step."""
        return self._checked is None

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The step's result for these inputs. Raises what its boundaries raise."""
        self._fill(inputs)
        for prepare in self._prepare:
            prepare()
        for action in self._actions:
            action()
        return self.result

    def agrees(self, inputs: Sequence[Tensor], answers: Sequence[Answer], result: Tensor) -> bool:
        """Whether a step had these bits in what boundaries are given, and in its result, if they returned the same.

        It is `checked` then.
        """
        self._fill(inputs)
        bound = {each.run: each for each in self._bound}
        left = list(answers)
        for action in self._checked or []:
            if (boundary := bound.get(action)) is None:
                action()
                continue
            if not left:
                return False
            given, returned = left.pop(0)
            if not all(map(_same, given, boundary.tensors)):
                return False
            boundary.result.copy_(returned)
            boundary.after()
        if left or not _same(result, self.result):
            return False
        self._checked, self._bound = None, []
        return True

    def _fill(self, inputs: Sequence[Tensor]) -> None:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)

    def _segment(self, operations: Sequence[Operation], how: RunMode) -> list[Action]:
        actions: list[Action] = []
        rows: list[Row] = []

        def end_rows() -> None:
            if rows:
                actions.append(runner(rows))
                rows.clear()

        for recorded in operations:
            operation = self._moved(recorded)
            steps, action = self._run_by(operation, recorded, how)
            rows += [_alone(row) if how is RunMode.ALONE else row for row in steps]
            if steps:
                self._kept += [tensor for tensor in recorded.taken() if not self._arena.holds(tensor)]
            if action is not None:
                end_rows()
                actions.append(action)
        end_rows()
        return actions

    def _run_by(
        self, operation: Operation, recorded: Operation, how: RunMode
    ) -> tuple[Sequence[Row], Action | None]:
        """Steps that do it, or else an action; neither if there is nothing to do."""
        function = operation.function
        if isinstance(function, Kernel):
            return [function.row(operation.arguments, operation.results)], None
        if not isinstance(function, Boundary):
            steps = steps_of(operation) if self._computes(recorded) else []
            return steps or [], _action(operation) if steps is None else None
        if how is RunMode.WHOLE and (step := function.step(operation.arguments, operation.results[0])) is not None:
            self._prepare.append(step.prepare)
            return [step.row], None
        return [], self._bind(operation)

    def _moved(self, operation: Operation) -> Operation:
        return Operation(
            function=operation.function,
            arguments=mapped(operation.arguments, self._arena.tensor),
            named=mapped(operation.named, self._arena.tensor),
            results=[self._arena.tensor(each) for each in operation.results],
            beside=operation.beside,
        )

    def _computes(self, operation: Operation) -> bool:
        """Whether it does more than to name memory. Raises `NotRecorded` if it changes memory not of the step."""
        function = operation.function
        if function._schema.is_mutable and (
            "out" in operation.named or not self._arena.holds(operation.arguments[0])
        ):
            raise NotRecorded(f"{function} changes what is not its step's")
        return function not in _EMPTY and computes(operation)

    def _bind(self, operation: Operation) -> Action:
        alone, after = (
            partial(_run_all, self._segment(operation.beside, each)) for each in (RunMode.ALONE, RunMode.WHOLE)
        )
        tensors, (result,) = list(operation.arguments), operation.results
        run: Action = operation.function.bound(tensors, result, alone, after)
        self._bound.append(_Bound(tensors, result, run, after))
        return run


class ProgramMemory:
    """For the arenas of programs that do not run at the same time."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)

    def of(self, nbytes: int) -> Tensor:
        """`[nbytes]` uint8 or more. What was returned before stays valid."""
        if nbytes > len(self._memory):
            self._memory = torch.empty(1 << (nbytes - 1).bit_length(), dtype=torch.uint8)
        return self._memory


def _alone(row: Row) -> Row:
    return (*row[:-1], 1) if row[0] in (TEAM_RUN, TEAM_END) else row


def _run_all(actions: Sequence[Action]) -> None:
    for action in actions:
        action()


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether they have the same shape, dtype and bits."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(*(each.contiguous().view(-1).view(torch.uint8) for each in (one, other)))


def _action(operation: Operation) -> Action:
    """What has torch do it."""
    function, arguments, named, results = (
        operation.function,
        operation.arguments,
        operation.named,
        operation.results,
    )
    if function._schema.is_mutable:
        return partial(function, *arguments, **named)
    if function in COPIES:
        return partial(_copy, results[0], arguments[0])
    if (outs := _outs(function)) is not None:
        variant, names = outs
        return partial(variant, *arguments, **named, **dict(zip(names, results, strict=True)))
    return partial(_compute, function, arguments, named, results)


def _copy(result: Tensor, x: Tensor) -> None:
    result.copy_(x)


def _compute(function: Any, arguments: tuple[Any, ...], named: dict[str, Any], results: list[Tensor]) -> None:
    computed = function(*arguments, **named)
    for result, its in zip(results, computed if len(results) > 1 else [computed], strict=True):
        result.copy_(its)


@cache
def _outs(function: Any) -> tuple[Any, list[str]] | None:
    """The variant of an operation that writes to given tensors, and what it calls them."""
    wanted = [(each.name, str(each.type)) for each in function._schema.arguments]
    packet = function.overloadpacket
    for name in packet.overloads():
        variant = getattr(packet, name)
        its = variant._schema.arguments
        names = [each.name for each in its if each.is_out]
        if names and [(each.name, str(each.type)) for each in its if not each.is_out] == wanted:
            return variant, names
    return None
