"""Where the scales of a weight with scales by group lie (`c/formats/grouped.h`)."""

from __future__ import annotations

import ctypes

from faasmoe.experts.kernels.library import ADDRESS, INT


class Scales(ctypes.Structure):
    """`Scales` of `c/formats/grouped.h`. Whoever has it keeps the scales alive."""

    _fields_ = (
        ("at", ADDRESS),
        ("line", INT),  # bytes from one row of scales to the next
        ("outs", INT),  # weight rows that share a row of scales
        ("constant", INT),  # whether a row of scales has a single one (fp8)
        ("factor", ctypes.c_double),  # of all sums, a float32
    )


class Int4Groups(ctypes.Structure):
    """`Int4Groups` of `c/formats/grouped_int4.h`. Whoever has it keeps the arrays alive."""

    _fields_ = (
        ("scales", ADDRESS),  # float32 [out, in / group]
        ("zeros", ADDRESS),  # uint8, likewise
        ("group", INT),  # columns: 32, 64 or 128
    )
