"""What was measured of the kernels on a machine, and what follows from it. Loads no kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import inf, log
from statistics import fmean
from typing import Literal

from faasmoe.experts.kernels.choice import Choice

BFLOAT16 = "bfloat16"  # the format of weights that are not quantised
ONEDNN = "oneDNN"  # stands beside the instruction sets where it was measured too (`model.dense.linear.onednn`)

_LEAST_GAIN = 0.03  # of the time, for which the best by the CPU's flags is given up
_ONEDNN_GAIN = 2  # times as fast must oneDNN be: with it a row's bits depend on how many rows come with it


@dataclass(frozen=True)
class Measurement:
    """Of one product with weights of a format, on one thread. Raises `ValueError` for what nobody can measure."""

    format: str  # of the weights: bfloat16, or one that weights can be converted to
    rows: int
    source: Literal["memory", "cache"]  # of the weights
    milliseconds: dict[str, float]  # by instruction set, and by `ONEDNN`: the least of several

    def __post_init__(self) -> None:
        if not self.format.isidentifier() or self.rows < 1:
            raise ValueError(f"a product of {self.rows} rows with weights in {self.format!r}")
        if not all(0 < each < inf for each in self.milliseconds.values()):
            raise ValueError(f"a product that takes no time, or for ever: {self.milliseconds}")


@dataclass(frozen=True)
class Calibration:
    """What was measured on a machine, and what follows from it. Raises `ValueError` if nothing was measured."""

    measurements: list[Measurement]
    seconds: float  # that it took

    def __post_init__(self) -> None:
        if not self.measurements:
            raise ValueError("a calibration without measurements")

    def choice(self, format: str, names: Sequence[str]) -> Choice:
        """What a process whose weights are in `format` should compute with.

        `names`: the instruction sets that run here, the best by the CPU's flags first. A format that was not measured
        gets what is the fastest over all.
        """
        its = [each.milliseconds for each in self.measurements if each.format == format]
        name = fastest(its or [each.milliseconds for each in self.measurements], names)
        return Choice(name, self._onednn_rows(name))

    def _onednn_rows(self, name: str) -> int | None:
        """From how many rows on oneDNN is the faster one, by `_ONEDNN_GAIN`."""
        both = [each for each in self.measurements if {ONEDNN, name} <= each.milliseconds.keys()]
        both.sort(key=lambda each: each.rows, reverse=True)
        gains = ((each.rows, each.milliseconds[name] / each.milliseconds[ONEDNN]) for each in both)
        worth = [rows for rows, _ in takewhile(lambda found: found[1] >= _ONEDNN_GAIN, gains)]
        return worth[-1] if worth else None


def fastest(times: Sequence[Mapping[str, float]], names: Sequence[str]) -> str:
    """The one of `names` with the least geometric mean over all products, or the first if that is hardly slower.

    `times`: of each product, by name. A name that was not measured with all products is none that can be the fastest.
    """
    means = {
        name: fmean(log(each[name]) for each in times) for name in names if all(name in each for each in times)
    }
    if not means:
        return names[0]
    first, best = next(iter(means)), min(means, key=means.__getitem__)
    return best if means[best] < means[first] + log(1 - _LEAST_GAIN) else first
