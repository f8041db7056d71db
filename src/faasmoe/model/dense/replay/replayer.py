"""Runs steps of few rows from lists of operations, recorded and checked once steps have as many rows often."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from faasmoe.errors import FaasmoeError, brief
from faasmoe.model.dense.replay.operation import Boundary, visible
from faasmoe.model.dense.replay.program import Answer, Program, ProgramMemory
from faasmoe.model.dense.replay.recorder import OperationRecorder

_log = logging.getLogger(__name__)
_MOST_ROWS = 31  # with more, what Python takes is little beside what it starts
BEFORE = 4  # steps with so many rows that run before one is recorded, which takes as long as ten and more save
_RAISED = (RuntimeError, TypeError, ValueError, IndexError, AttributeError, MemoryError)  # by torch, or for it

Forward = Callable[[Sequence[Tensor]], Tensor]


class Replayer:
    """The programs of a model by their number of rows. For one thread at a time."""

    def __init__(self, forward: Forward) -> None:
        """`forward` maps inputs, whose shapes follow from the rows, to a result. It is transformers' own."""
        self._forward = forward
        self._programs: dict[int, Program] = {}
        self._seen = Counter[int]()  # steps by rows
        self._memory = ProgramMemory()
        self.refused = ""  # why steps run by `forward`

    def forget(self) -> None:
        """Record anew, because what the model calls is another from now on."""
        self._programs.clear()

    def run(self, rows: int, inputs: Sequence[Tensor]) -> Tensor:
        """What `forward` returns for `inputs`, in the same bits. Valid until the next run. Raises what it raises."""
        if self.refused or rows > _MOST_ROWS:
            return self._forward(inputs)
        program = self._programs.get(rows)
        if program is None:
            self._seen[rows] += 1
            return self._forward(inputs) if self._seen[rows] <= BEFORE else self._record(rows, inputs)
        if not program.checked:
            return self._check(program, inputs)
        return program.run(inputs)

    def _record(self, rows: int, inputs: Sequence[Tensor]) -> Tensor:
        try:
            with OperationRecorder() as recorder:
                result = self._forward(inputs)
        except FaasmoeError:  # of the experts: the next step records
            raise
        except Exception as error:
            self._refuse(f"they cannot be recorded: {brief(error)}")
            raise
        if recorder.refused:
            self._refuse(recorder.refused)
            return result
        try:
            self._programs[rows] = Program(recorder.operations, inputs, result, self._memory)
        except _RAISED as error:
            self._refuse(brief(error))
        return result

    def _check(self, program: Program, inputs: Sequence[Tensor]) -> Tensor:
        """The numbers of this step are others than those of the one that was recorded."""
        with _Watch() as watch:
            result = self._forward(inputs)
        try:
            program.agrees(inputs, watch.answers, result)
        except _RAISED as error:
            self._refuse(brief(error))
            return result
        if not program.checked:
            self._refuse("a list of them computes something else")
        return result

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.forget()
        _log.info("steps run by transformers' forward, not from a list of its operations: %s", reason)


class _Watch(TorchFunctionMode):
    """Copies what boundaries are given and return."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Answer] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not visible or not isinstance(args[0], Boundary):
            return func(*args, **(kwargs or {}))
        function, *tensors = args
        copies = [tensor.clone() for tensor in tensors]
        result = function(*tensors)
        self.answers.append((copies, result.clone()))
        return result
