"""The library of compiled kernels: one shared object for each instruction set, built with the package.

Calls run without Python's lock. C cannot check what an address points to, so callers check shapes and dtypes.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faasmoe.errors import OptionError

VARIABLE = "FAASMOE_KERNELS"  # environment variable: the instruction set to use
ADDRESS = ctypes.c_void_p
INT = ctypes.c_int64
FLOAT = ctypes.c_float
BOOL = ctypes.c_bool

# Instruction sets by architecture, the best first, and the flags of /proc/cpuinfo that each needs
_SETS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {
        "avx512bf16": frozenset(
            {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "avx512_bf16", "avx512_vnni", "fma"}
        ),
        "avx512": frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", "fma"}),
        "avx2": frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"}),
        "baseline": frozenset(),
    },
    "aarch64": {"bf16": frozenset({"bf16", "i8mm", "asimddp"}), "baseline": frozenset()},
}


def instruction_sets() -> list[str]:
    """Those that this machine's CPU has and this package was built with, the best first."""
    flags = _cpu_flags()
    wanted = _SETS.get(platform.machine(), {})
    return [name for name, needed in wanted.items() if needed <= flags and _file(name).exists()]


def _cpu_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _file(instruction_set: str) -> Path:
    return Path(__file__).with_name(f"kernels-{platform.machine()}-{instruction_set}.so")


class Library:
    """The kernels for one instruction set."""

    def __init__(self, instruction_set: str) -> None:
        self.instruction_set = instruction_set
        self._functions = ctypes.CDLL(str(_file(instruction_set)))

    @classmethod
    def chosen(cls) -> Library:
        """The best that this machine can run, or the one that `VARIABLE` names. Raises `OptionError`."""
        found, wanted = instruction_sets(), os.environ.get(VARIABLE)
        if not found:
            raise OptionError(
                f"the kernels of this package were not built for {platform.machine()}; install it again with pip"
            )
        if wanted and wanted not in found:
            raise OptionError(f"{VARIABLE}={wanted}: must be one of {', '.join(found)}")
        return cls(wanted or found[0])

    def function(self, name: str, *arguments: Any, result: Any = None) -> Callable[..., Any]:
        """The C function `name`. `arguments` and `result`: ctypes' types of its parameters and of what it returns."""
        function = self._functions[name]
        function.argtypes, function.restype = arguments, result
        return function


LIBRARY = Library.chosen()
