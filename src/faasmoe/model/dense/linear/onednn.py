"""How long torch's oneDNN takes for products of many rows, beside our kernels' times (`experts.calibrator`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F

from faasmoe.experts.calibrator import INS, SIZES, least_milliseconds
from faasmoe.experts.kernels.calibration import BFLOAT16, ONEDNN, Measurement
from faasmoe.experts.kernels.choice import MANY_ROWS

_ROUNDS = 3


def timed(measurements: Sequence[Measurement]) -> list[Measurement]:
    """`measurements` with oneDNN's times in those of products that it may take over. On one thread, like the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [
            replace(each, milliseconds={**each.milliseconds, ONEDNN: _milliseconds(each)})
            if each.format == BFLOAT16 and each.rows >= MANY_ROWS
            else each
            for each in measurements
        ]
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _milliseconds(measured: Measurement) -> float:
    outs = SIZES[measured.source] // INS // torch.bfloat16.itemsize
    x, weight = torch.randn(measured.rows, INS).bfloat16(), torch.randn(outs, INS).bfloat16()
    return min(least_milliseconds(lambda: F.linear(x, weight)) for _ in range(_ROUNDS))
