"""The library of compiled kernels: one shared object for each instruction set, made by hatch_build.py.

Calls run without Python's lock. C cannot check what an address points to, so callers check shapes and dtypes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from faasmoe.errors import OptionError, UserError, brief
from faasmoe.experts.kernels.cpu import Cpu

VARIABLE = "FAASMOE_KERNELS"  # environment variable: the instruction set to use, or a path of a shared object
ADDRESS = ctypes.c_void_p
INT = ctypes.c_int64
FLOAT = ctypes.c_float
BOOL = ctypes.c_bool
_view, _address_of = (ctypes.c_char * 0).from_buffer, ctypes.addressof  # looked up once: `address` is called often

_FOLDER = os.path.dirname(__file__)
_AGAIN = "install the package again; in a checkout run: python hatch_build.py"
# Flags of /proc/cpuinfo. The first two are what compilers call x86-64-v3 and v4.
_AVX2 = frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_AVX512 = _AVX2 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_NEEDED = {  # by architecture and instruction set, the best first, as in hatch_build.py
    "x86_64": {
        "avx512bf16": _AVX512 | {"avx512_bf16", "avx512_vnni"},
        "avx512": _AVX512,
        "avx2": _AVX2,
        "baseline": frozenset[str](),
    },
    "aarch64": {"bf16": frozenset({"asimddp", "bf16", "i8mm"}), "baseline": frozenset[str]()},
}


class InstructionSet(NamedTuple):
    """Instructions that kernels are compiled for."""

    name: str
    file: str  # the shared object
    built: bool  # it is there
    lacking: tuple[str, ...]  # flags that this CPU would have to have

    @property
    def runs(self) -> bool:
        """Whether this machine can run the kernels."""
        return self.built and not self.lacking


def known(cpu: Cpu, folder: str = _FOLDER) -> list[InstructionSet]:
    """Those of an architecture, the best first. None for an architecture that has no kernels."""
    found = []
    for name, needed in _NEEDED.get(cpu.architecture, {}).items():
        file = os.path.join(folder, f"kernels-{cpu.architecture}-{name}.so")
        found.append(InstructionSet(name, file, os.path.exists(file), tuple(sorted(needed - cpu.flags))))
    return found


def instruction_sets() -> list[str]:
    """What `Library` takes here, the best first: names, or the path of a shared object if `VARIABLE` has one."""
    wanted = os.environ.get(VARIABLE, "")
    return [wanted] if "/" in wanted else [each.name for each in known(Cpu.here()) if each.runs]


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
        found, wanted = instruction_sets(), os.environ.get(VARIABLE)
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


def address(buffer: Any) -> int:
    """Of the first byte of an array or another buffer, in a quarter of the time that `array.ctypes.data` takes.

    Raises `TypeError` if it is not contiguous or not writable.
    """
    return _address_of(_view(buffer))


LIBRARY = Library.chosen()
