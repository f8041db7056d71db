"""Options that are numbers: each states its range, and a value out of range is refused before anything runs.

An option that is a number is made by `whole`, `real` or `size`; a test finds those that are not.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import typer

MOST_COUNT = 1_000_000  # of what is counted where nothing else bounds it: more is a slip
MOST_SECONDS = 86400 * 366
MOST_TOKENS = (1 << 31) - 1
MOST_SEED = (1 << 63) - 1

_LONGEST = 40  # characters of a value that are repeated, and that a size may have
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgtpe])(i?)b?|b)", re.ASCII | re.IGNORECASE)
_MOST_BYTES = 1 << 60


@dataclass(frozen=True)
class Number:
    """Reads numbers from `least` to `most`; `above` says that `least` itself is none of them."""

    kind: type[int] | type[float]
    least: float
    most: float
    above: bool = False

    def __call__(self, value: Any) -> float:
        """Raises `typer.BadParameter`."""
        try:
            number = self.kind(value)
        except (ValueError, OverflowError):
            number = math.nan
        enough = number > self.least if self.above else number >= self.least
        if not (enough and number <= self.most):  # so that NaN is refused
            raise typer.BadParameter(f"{_shown(value)}: must be {self._right(too_large=number > self.most)}")
        return number

    def _right(self, too_large: bool) -> str:
        what = "a whole number, " if self.kind is int else ""
        low, high = (str(bound) if self.kind is int else f"{bound:g}" for bound in (self.least, self.most))
        if self.most == math.inf:
            return f"{what}at least {low}, or inf"
        if is_technical(self.most):
            return f"{what}at most {high}" if too_large else f"{what}{'above' if self.above else 'at least'} {low}"
        return f"{what}above {low} and at most {high}" if self.above else f"{what}{low} to {high}"


@dataclass(frozen=True)
class Size:
    """Reads numbers of bytes with their unit; `ours` says that this process has to have as much memory."""

    ours: bool

    def __call__(self, value: Any) -> int:
        """Raises `typer.BadParameter`."""
        if isinstance(value, int):  # a default
            return value
        text = str(value).strip()
        found = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
        if not found:
            raise typer.BadParameter(f"{_shown(value)}: must be a size with its unit, such as 4GiB or 500MB")
        number, letter, binary = found.groups()
        power = " kmgtpe".index(letter.lower()) if letter else 0
        nbytes = int(Decimal(number) * (1024 if binary else 1000) ** power)
        if not 1 <= nbytes <= _MOST_BYTES:
            raise typer.BadParameter(f"{text}: must be 1B to 1EiB")
        if self.ours:
            _check_memory(text, nbytes)
        return nbytes


def is_technical(bound: float) -> bool:
    """True for a bound that only catches typing errors, so that the help need not show it."""
    return abs(bound) >= MOST_COUNT


def whole(least: int, most: int, *names: str, **more: Any) -> Any:
    """An option that takes whole numbers. `names` and `more` as for `typer.Option`."""
    return _option(Number(int, least, most), least, most, names, more)


def real(least: float, most: float, *names: str, above: bool = False, **more: Any) -> Any:
    """An option that takes numbers; infinity as well if that is `most`."""
    return _option(Number(float, least, most, above), least, most, names, more)


def size(*names: str, ours: bool = False, **more: Any) -> Any:
    """An option that takes sizes, as bytes."""
    return typer.Option(*names, parser=Size(ours), metavar="SIZE", **more)


def _option(number: Number, least: float, most: float, names: tuple[str, ...], more: dict[str, Any]) -> Any:
    low, high = (None if is_technical(bound) else bound for bound in (least, most))
    return typer.Option(*names, parser=number, min=low, max=high, **more)


def _check_memory(text: str, nbytes: int) -> None:
    from faasmoe.util import machine

    if nbytes > (most := machine.memory()):
        whose = "the control group that this runs in" if machine.memory_is_limited() else "this machine"
        raise typer.BadParameter(f"{text}: {nbytes / 1e9:.2f} GB, and {whose} has {most / 1e9:.2f} GB in all")


def _shown(value: Any) -> str:
    """A value as it was given, fit for a message on one line."""
    text = str(value)
    if not text.strip() or not text.isprintable():
        text = repr(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
