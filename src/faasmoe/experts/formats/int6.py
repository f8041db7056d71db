"""Weights in int6 with a scale and a zero for each group of 32, a byte each: 6.5 bits a weight, in the way of int4."""

from __future__ import annotations

from typing import ClassVar

from faasmoe.experts.formats.int4 import Int4Format, Int4Matrix
from faasmoe.experts.kernels.kernel_format import KernelFormat


class Int6Matrix(Int4Matrix):
    """A weight `[out, in]`: those of a group are its scale times (a code from 0 to 63 - the group's zero)."""

    __slots__ = ()
    format: ClassVar[str] = "int6"
    bits: ClassVar[int] = 6
    kernel_format: ClassVar[KernelFormat] = KernelFormat.INT6


class Int6Format(Int4Format):
    """The format in which `int4` keeps the layer that gives logits."""

    name = Int6Matrix.format
    head = ""
    matrix = Int6Matrix


FORMAT = Int6Format()
