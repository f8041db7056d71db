"""Runs the tests of a module on each instruction set that the CPU has, not only on the best."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from faasmoe.experts.kernels.library import Library, instruction_sets


def on_each(*modules: ModuleType) -> Any:
    """A fixture for all tests of a file: while they run, the C functions that `modules` hold are those of one set."""

    @pytest.fixture(scope="module", autouse=True, params=instruction_sets())
    def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
        library = Library(request.param)
        with pytest.MonkeyPatch.context() as patch:
            for module in modules:
                for name, function in vars(module).copy().items():
                    if isinstance(function, ctypes._CFuncPtr):
                        its = library.function(function.__name__, *function.argtypes, result=function.restype)
                        patch.setattr(module, name, its)
            yield request.param

    return instruction_set
