"""Tables on a terminal, of which no name and no figure is ever cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000  # columns, to measure how wide a table would like to be


class WholeTable:
    """A Rich table with every cell on one line; where the terminal is too narrow for that, a list of its rows.

    In the list a row begins with the cell of its first column, and each other cell that is not empty has a line
    with the column's name before it.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for column in self._table.columns:
            column.no_wrap = True
        wanted = Measurement.get(console, options.update(width=_UNBOUNDED), self._table).maximum
        if wanted <= options.max_width:
            yield self._table
            return
        if self._table.title:
            yield self._table.title
        for row in range(self._table.row_count):
            yield from self._lines(console, row)

    def _lines(self, console: Console, row: int) -> Iterator[RenderableType]:
        names, *columns = self._table.columns
        yield _text(console, list(names.cells)[row], "bold")
        for column in columns:
            cell = _text(console, list(column.cells)[row], self._table.rows[row].style)
            if cell.plain:
                name = _text(console, column.header, "dim")
                yield Text("  ").append(name).append("  " if name.plain else "").append(cell)


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
