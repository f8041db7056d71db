"""The library of compiled kernels: one shared object for each instruction set, made by hatch_build.py.

Calls run without Python's lock. C cannot check what an address points to, so callers check shapes and dtypes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

from faasmoe.errors import OptionError, UserError, brief
from faasmoe.experts.kernels.choice import VARIABLE, Choice
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import known, running

ADDRESS = ctypes.c_void_p
INT = ctypes.c_int64
FLOAT = ctypes.c_float
BOOL = ctypes.c_bool
TEXT = ctypes.c_char_p
# Parameters of `linear_rows` (c/linear/matvec.c): x, weights, scales, format, bias, y, rows, outs, ins
LINEAR_ROWS = (*[ADDRESS] * 3, INT, *[ADDRESS] * 2, *[INT] * 3)

_AGAIN = "install the package again; in a checkout run: python hatch_build.py"


def instruction_sets() -> list[str]:
    """What `Library` takes here, the best first: names, or the path of a shared object if `VARIABLE` has one."""
    wanted = Choice.here().instruction_set
    return [wanted] if "/" in wanted else running(Cpu.here())


class Library:
    """The kernels for one instruction set, by its name or in the shared object of a path.

    Raises `UserError` if they cannot be loaded.
    """

    def __init__(self, instruction_set: str) -> None:
        self.instruction_set = instruction_set
        files = {each.name: each.file for each in known(Cpu.here())}
        self._file = files.get(instruction_set, instruction_set)
        try:
            self._functions = ctypes.CDLL(self._file)
        except OSError as error:
            raise UserError(f"kernels cannot be loaded: {brief(error)}; {_AGAIN}") from error

    @classmethod
    def chosen(cls) -> Library:
        """The best that this machine can run, or the one that `VARIABLE` names.

        Raises `OptionError` for a name that there is none of, and `UserError` if there is none at all.
        """
        found, wanted = instruction_sets(), Choice.here().instruction_set
        if not found:
            raise UserError(f"this package has no kernels for the architecture {os.uname().machine}; {_AGAIN}")
        if wanted and wanted not in found:
            raise OptionError(f"{VARIABLE}={wanted}: must be one of {', '.join(found)}, which run here")
        return cls(wanted or found[0])

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[..., Any]:
        """The C function `name`. `arguments` and `result`: ctypes' types of its parameters and of what it returns.

        Raises `UserError` if there is none, because kernels are older than the code that calls them.
        """
        try:
            function = self._functions[name]
        except AttributeError:
            raise UserError(f"{self._file} has no kernel {name}; {_AGAIN}") from None
        function.argtypes, function.restype = arguments, result
        return function


LIBRARY = Library.chosen()
