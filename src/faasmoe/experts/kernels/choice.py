"""What a process computes with, as `VARIABLE` has it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from faasmoe.errors import OptionError
from faasmoe.experts.kernels.cpu import Cpu

VARIABLE = "FAASMOE_KERNELS"  # environment variable: a `Choice` as text
MANY_ROWS = 64  # the fewest rows for which oneDNN may be the faster one
_MATRICES = "amx_bf16"  # flag of a CPU with instructions for products of matrices, which oneDNN uses and we do not
_ONEDNN = ",onednn="


@dataclass(frozen=True)
class Choice:
    """One instruction set for all that a process computes, and oneDNN for products of many rows in the dense part."""

    instruction_set: str  # its name, or the path of a shared object; empty: the best by the CPU's flags
    onednn_rows: int | None = None  # from so many on torch's oneDNN multiplies by weights in bfloat16; None: never

    @classmethod
    def here(cls) -> Choice:
        """The one that `VARIABLE` has; without it the CPU's flags decide. Raises `OptionError`."""
        if wanted := os.environ.get(VARIABLE):
            return cls.parse(wanted)
        return cls("", MANY_ROWS if _MATRICES in Cpu.here().flags else None)

    @classmethod
    def parse(cls, text: str) -> Choice:
        """What `str` gives. Raises `OptionError`."""
        name, found, rows = text.partition(_ONEDNN)
        if not found:
            return cls(name)
        if not name or not rows.isdecimal() or len(rows) > 9 or not int(rows):
            raise OptionError(f"{VARIABLE}={text}: behind an instruction set may stand {_ONEDNN}ROWS, such as 64")
        return cls(name, int(rows))

    def __str__(self) -> str:
        return self.instruction_set + (f"{_ONEDNN}{self.onednn_rows}" if self.onednn_rows else "")
