"""Charts, each as SVG whose colours follow the page's and as PNG. Drawn with matplotlib, without its global state.

It is imported when something is drawn: whoever reads tables needs none.

All are as wide as a phone's page, so that nobody has to scale them: on wide pages several stand side by side.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from faasmoe.errors import OptionError
from faasmoe.evaluation.report.units import EXTRAPOLATED, places_of

WIDTH = 380  # units of the SVG; as many pixels where it is not scaled
INK, GRID, BEHIND = "#24292f", "#d0d7de", "#ffffff"
# Told apart by the colour-blind too: Okabe and Ito 2008, darkened or lightened where white is behind.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5668f", "#b58900", "#767d85", "#3b9bc8", "#7a5195")
OF_STRATEGY = {
    "faasmoe-shared": COLOURS[0], "faasmoe-private": COLOURS[2], "shared-full": COLOURS[1],
    "local-distribution": COLOURS[3], "baseline": COLOURS[5], "llama.cpp": COLOURS[4],
}  # fmt: skip
_OF_PART = {
    "orchestrator": COLOURS[0], "instances": COLOURS[2], "model": COLOURS[5], "zygote": COLOURS[1],
    "daemon": COLOURS[3], "template": COLOURS[6], "gateway": COLOURS[7],
}  # fmt: skip
_MARKERS = "osD^vP"
_STYLE: dict[str, Any] = {
    "font.size": 11, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "svg.fonttype": "none",
    "svg.hashsalt": "faasmoe", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GRID,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 10,
    "legend.handlelength": 1.4, "legend.columnspacing": 1.2, "figure.dpi": 72,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart."""

    svg: str  # an element for a page; its colours are variables of the page, with values if it has none
    png: bytes  # on white


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with its interval, which is NaN where trials do not tell."""

    value: float
    low: float
    high: float
    extrapolated: bool = False

    @property
    def beside(self) -> tuple[float, float]:
        """The interval's distances below and above the value; 0 if unknown."""
        known = math.isfinite(self.high - self.low)
        return (self.value - self.low, self.high - self.value) if known else (0.0, 0.0)


Line = Sequence[tuple[float, Mark]]


def bars(axis: str, marks: Mapping[str, Mark]) -> Drawing:
    """A bar for each strategy, with its interval and its value at the end."""
    with _style():
        figure, axes = _canvas(28 * len(marks) + 62)
        names = list(marks)
        most = max(mark.value + mark.beside[1] for mark in marks.values())
        for place, (name, mark) in enumerate(marks.items()):
            colour = _colour(name, place)
            hollow = mark.extrapolated
            axes.barh(place, mark.value, 0.66, color="none" if hollow else colour, edgecolor=colour,
                      linestyle="--" if hollow else "-")  # fmt: skip
            below, above = mark.beside
            if below or above:
                axes.errorbar(mark.value, place, xerr=[[below], [above]], color=INK, capsize=3, linewidth=1)
            text = f"{mark.value:,.{places_of(mark.value)}f}{' ' + EXTRAPOLATED if hollow else ''}"
            axes.annotate(text, (mark.value + above, place), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.25 * most or 1)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(axis)
        return _drawn(figure)


def stacked(axis: str, rows: Mapping[str, Mapping[str, float]]) -> Drawing:
    """A bar for each row, made of parts; a part has the same colour in all of them."""
    with _style():
        parts = list(dict.fromkeys(part for row in rows.values() for part in row))
        figure, axes = _canvas(30 * len(rows) + 66 + 17 * -(-len(parts) // 2))
        lefts = [0.0] * len(rows)
        for number, part in enumerate(parts):
            widths = [row.get(part, 0.0) for row in rows.values()]
            colour = _OF_PART.get(part, COLOURS[number % len(COLOURS)])
            hatch = None if number < len(COLOURS) else "///"
            axes.barh(range(len(rows)), widths, 0.66, lefts, color=colour, label=part, hatch=hatch, edgecolor=BEHIND,
                      linewidth=0.4)  # fmt: skip
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 1.05 * max(lefts) or 1)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(axis)
        figure.legend(loc="outside upper left", ncols=2)
        return _drawn(figure)


def lines(x_axis: str, y_axis: str, series: Mapping[str, Line], doubling: bool = False) -> Drawing:
    """A line for each strategy through its points; `doubling` has each twice as far right as its half."""
    with _style():
        figure, axes = _canvas(230 + _legend_height(series))
        for place, (name, points) in enumerate(series.items()):
            xs, marks = [x for x, _ in points], [mark for _, mark in points]
            _line(axes, name, place, xs, marks, [mark.extrapolated for mark in marks])
        if doubling:
            axes.set_xscale("log", base=2)
            axes.minorticks_off()
        ticks = sorted({x for points in series.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="y", nbins=5)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        _legend(figure, series)
        return _drawn(figure)


def curve(x_axis: str, y_axis: str, series: Mapping[str, Sequence[tuple[str, Mark, Mark]]]) -> Drawing:
    """A curve of one figure over another: points joined in order, each labelled with its setting."""
    with _style():
        figure, axes = _canvas(250 + _legend_height(series))
        for place, (name, points) in enumerate(series.items()):
            xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
            axes.errorbar([x.value for x in xs], [y.value for y in ys], xerr=_beside(xs), yerr=_beside(ys),
                          label=name, color=_colour(name, place), marker=_MARKERS[place % len(_MARKERS)], markersize=5,
                          linewidth=1.4, elinewidth=0.8, capsize=2)  # fmt: skip
            for number, (label, x, y) in enumerate(points):  # above and below by turns, for neighbours may be near
                beside = (5, -14) if number % 2 else (5, 6)
                axes.annotate(label, (x.value, y.value), beside, textcoords="offset points", fontsize=10)
        axes.set_xlim(0, 1.15 * max(x.value for points in series.values() for _, x, _ in points) or 1)
        axes.set_ylim(
            0, 1.15 * max(y.value + y.beside[1] for points in series.values() for _, _, y in points) or 1
        )
        return _labelled(figure, axes, x_axis, y_axis, series, x_bins=5)


def traces(x_axis: str, y_axis: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Drawing:
    """A line for each strategy through all its samples."""
    with _style():
        figure, axes = _canvas(230 + _legend_height(series))
        for place, (name, (xs, ys)) in enumerate(series.items()):
            axes.plot(xs, ys, label=name, color=_colour(name, place), linewidth=1.4)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        return _labelled(figure, axes, x_axis, y_axis, series, x_bins=6)


def _style() -> AbstractContextManager[None]:
    """Raises `OptionError` without matplotlib."""
    try:
        import matplotlib  # noqa: PLC0415 - see above
    except ImportError as error:
        raise OptionError(
            "evaluate report: charts need matplotlib; install it with: pip install matplotlib"
        ) from error
    context: AbstractContextManager[None] = matplotlib.rc_context(_STYLE)
    return context


def _canvas(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure((WIDTH / 72, height / 72), layout="constrained")
    return figure, figure.subplots()


def _line(
    axes: Any, name: str, place: int, xs: Sequence[float], marks: Sequence[Mark], hollow: Sequence[bool]
) -> None:
    colour, marker = _colour(name, place), _MARKERS[place % len(_MARKERS)]
    axes.errorbar(xs, [mark.value for mark in marks], yerr=_beside(marks), label=name, color=colour, marker=marker,
                  markersize=5, linewidth=1.4, elinewidth=0.8, capsize=2)  # fmt: skip
    for x, mark, empty in zip(xs, marks, hollow, strict=True):
        if empty:
            axes.annotate(EXTRAPOLATED, (x, mark.value), (4, 4), textcoords="offset points")


def _beside(marks: Sequence[Mark]) -> list[list[float]]:
    return [[mark.beside[0] for mark in marks], [mark.beside[1] for mark in marks]]


def _colour(name: str, place: int) -> str:
    return OF_STRATEGY.get(name, COLOURS[place % len(COLOURS)])


def _legend_height(series: Mapping[str, object]) -> int:
    return 17 * -(-len(series) // 2) if len(series) > 1 else 0


def _legend(figure: Any, series: Mapping[str, object]) -> None:
    if len(series) > 1:
        figure.legend(loc="outside upper left", ncols=2)


def _labelled(
    figure: Any, axes: Any, x_axis: str, y_axis: str, series: Mapping[str, object], x_bins: int
) -> Drawing:
    """A chart of lines as it is when these are drawn; `x_bins` is the most ticks below it."""
    axes.locator_params(axis="x", nbins=x_bins)
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel(x_axis)
    axes.set_ylabel(y_axis)
    _legend(figure, series)
    return _drawn(figure)


def _drawn(figure: Any) -> Drawing:
    vector, pixels = io.StringIO(), io.BytesIO()
    figure.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    figure.savefig(pixels, format="png", dpi=200, facecolor="white")
    return Drawing(_element(vector.getvalue()), pixels.getvalue())


def _element(svg: str) -> str:
    """Without what a file has before it, scaled by the page, in its colours and its font."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    names = {INK: "ink", GRID: "grid", BEHIND: "card"} | {
        colour: f"c{number}" for number, colour in enumerate(COLOURS)
    }
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0], names), text)


def _variable(colour: str, names: Mapping[str, str]) -> str:
    return f"var(--{names[colour]}, {colour})" if colour in names else colour
