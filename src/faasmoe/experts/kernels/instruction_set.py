"""The instruction sets that kernels are compiled for, and which of them this machine can run."""

from __future__ import annotations

import ctypes
import os
from typing import NamedTuple

from faasmoe.experts.kernels.cpu import Cpu

_FOLDER = os.path.dirname(__file__)
# Flags of /proc/cpuinfo. The first two are what compilers call x86-64-v3 and v4.
_AVX2 = frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"})
_AVX512 = _AVX2 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_NEEDED = {  # by architecture and instruction set, the best first, as in hatch_build.py
    "x86_64": {
        "avx512bf16": _AVX512 | {"avx512_bf16", "avx512_vnni", "avx512vbmi"},
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

    def digest(self) -> str:
        """What the kernels were compiled from: sources and flags (`c/base/digest.c`). Raises `OSError`."""
        function = ctypes.CDLL(self.file).digest
        function.restype = ctypes.c_char_p
        return str(function().decode())


def known(cpu: Cpu, folder: str = _FOLDER) -> list[InstructionSet]:
    """Those of an architecture, the best first. None for an architecture that has no kernels."""
    found = []
    for name, needed in _NEEDED.get(cpu.architecture, {}).items():
        file = os.path.join(folder, f"kernels-{cpu.architecture}-{name}.so")
        found.append(InstructionSet(name, file, os.path.exists(file), tuple(sorted(needed - cpu.flags))))
    return found


def running(cpu: Cpu) -> list[str]:
    """Names of those that this machine can run, the best by the CPU's flags first."""
    return [each.name for each in known(cpu) if each.runs]
