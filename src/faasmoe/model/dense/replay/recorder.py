"""Notes the operations of a forward while it runs as it always does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from faasmoe.model.dense.replay.operation import Boundary, Operation, mapped, visible

_aten = torch.ops.aten
_IN_ONE_PIECE = {_aten.linear.default}  # its parts round otherwise
_NOTHING = {_aten.detach_.default, _aten.lift_fresh.default}  # on a tensor made of numbers of Python
_READS = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}
_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.nondeterministic_seeded)


class OperationRecorder:
    """In its context operations are noted. `refused` says why they are not those of every step, if so."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.refused = ""
        self._unseen = False  # what runs is part of an operation that is noted as one
        self._functions, self._operations = _Functions(self), _Operations(self)
        self._modes = ExitStack()

    def __enter__(self) -> OperationRecorder:
        self._modes.enter_context(self._functions)
        self._modes.enter_context(self._operations)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._modes.close()

    def function(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A function of torch's interface, or `visible`."""
        if function is visible and not self._unseen:
            return self._visible(*arguments)
        if function in _READS and not self._unseen:
            self.refused = f"its code reads numbers by {function.__name__}"
        return function(*arguments, **named)

    def _visible(self, function: Any, *tensors: Tensor) -> Any:
        beside: list[Operation] = []
        if isinstance(function, Boundary):
            before, self.operations = self.operations, beside
            with self._functions:  # which torch has left to call us
                function.beside(*tensors)
            self.operations = before
        with self._apart():
            results = function.rest(*tensors) if isinstance(function, Boundary) else function(*tensors)
        listed = results if isinstance(results, list) else [results]
        self.operations.append(Operation(function=function, arguments=tensors, results=listed, beside=beside))
        return results

    def operation(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """An operation of torch."""
        if self._unseen or function in _NOTHING:
            return function(*arguments, **named)
        if function not in _IN_ONE_PIECE:
            with self._operations:
                results = function.decompose(*arguments, **named)
            if results is not NotImplemented:
                return results
        results = function(*arguments, **named)
        listed = list(results) if isinstance(results, list | tuple) else [results]
        if _depends_on_numbers(function, arguments) or not all(isinstance(each, Tensor) for each in listed):
            self.refused = f"what {function} returns depends on numbers"
        else:
            self.operations.append(Operation(function=function, arguments=arguments, named=named, results=listed))
        return results

    @contextmanager
    def _apart(self) -> Iterator[None]:
        self._unseen = True
        try:
            yield
        finally:
            self._unseen = False


def _depends_on_numbers(function: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether the shape of what an operation returns, or more than its numbers, may be another the next time."""
    if function is _aten.index.Tensor:
        masks: list[Tensor] = []
        mapped(
            arguments[1], lambda index: masks.append(index) if index.dtype in (torch.bool, torch.uint8) else None
        )
        return bool(masks)
    return any(tag in function.tags for tag in _TAGS)


class _Functions(TorchFunctionMode):
    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._recorder.function(func, args, kwargs or {})


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler for the first operation, to tell it not to compile this

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._recorder.operation(func, args, kwargs or {})
