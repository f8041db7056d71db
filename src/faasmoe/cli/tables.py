"""Tables on a terminal, of which no name and no figure is ever cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000  # columns, to measure how wide a table would like to be
_INDENT = 2


class WholeTable:
    """A Rich table without edges, whose cells are texts, each on one line.

    Where the terminal is too narrow for that, the cell of the first column stands on a line of its own, above the
    others. Where it is too narrow for the others as well, each has its own line, with the column's name before it.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        for column in table.columns:
            column.no_wrap = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if _fits(self._table, console, options, options.max_width):
            yield self._table
            return
        if self._table.title:
            yield self._table.title
        rest = self._rest()
        if _fits(rest, console, options, options.max_width - _INDENT):
            yield from self._under_names(rest, console, options)
            return
        for row in range(self._table.row_count):
            yield from self._lines(console, row)

    def _rest(self) -> Table:
        """The table without its first column."""
        rest = Table(box=None, pad_edge=False)
        for column in self._table.columns[1:]:
            rest.add_column(column.header, justify=column.justify, no_wrap=True)
        cells = [list(column.cells) for column in self._table.columns[1:]]
        for row, its in zip(self._table.rows, zip(*cells, strict=True), strict=True):
            rest.add_row(*its, style=row.style)
        return rest

    def _under_names(self, rest: Table, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        head, *rows = console.render_lines(Padding(rest, (0, 0, 0, _INDENT)), options, pad=False)
        first = self._table.columns[0]
        names = [_text(console, first.header, "bold"), *(_text(console, cell, None) for cell in first.cells)]
        for name, line in zip(names, [head, *rows], strict=True):
            yield name
            yield Segments([*line, Segment.line()])

    def _lines(self, console: Console, row: int) -> Iterator[RenderableType]:
        names, *columns = self._table.columns
        yield _text(console, list(names.cells)[row], "bold")
        for column in columns:
            cell = _text(console, list(column.cells)[row], self._table.rows[row].style)
            if cell.plain:
                name = _text(console, column.header, "dim")
                yield Text(" " * _INDENT).append(name).append("  " if name.plain else "").append(cell)


def _fits(table: Table, console: Console, options: ConsoleOptions, width: int) -> bool:
    return Measurement.get(console, options.update(width=_UNBOUNDED), table).maximum <= width


def _text(console: Console, cell: RenderableType, style: object) -> Text:
    """A cell as a line that wraps anywhere rather than being cut."""
    text = console.render_str(cell) if isinstance(cell, str) else cell
    if not isinstance(text, Text):
        raise TypeError(f"a cell of type {type(cell).__name__}; a table here holds texts")
    text = text.copy()
    text.overflow = "fold"
    if isinstance(style, str):
        text.stylize(style)
    return text
