from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from faasmoe.cli.tables import WholeTable

KEYS = ("memory_vs_local_distribution", "peak_memory_vs_shared_full")
FIGURES = ("0.710", "1.088")


def printed(width: int) -> str:
    table = Table("key", "figure", "95 % interval", "", box=None, pad_edge=False)
    for key, figure in zip(KEYS, FIGURES, strict=True):
        table.add_row(key, figure, "0.459 to 0.531", Text("[reached]"))
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(WholeTable(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [200, 80, 60, 40, 33])
def test_no_name_and_no_figure_is_cut(width):
    text = printed(width)
    assert "…" not in text
    for whole in (*KEYS, *FIGURES, "0.459 to 0.531", "[reached]", "95 % interval"):
        assert whole in text
    assert max(map(len, text.splitlines())) <= width


def test_what_fits_is_a_table():
    first, *rows = printed(80).splitlines()
    assert first.split() == ["key", "figure", "95", "%", "interval"]
    assert [row.split()[0] for row in rows] == list(KEYS)


def test_names_stand_above_where_there_is_no_room_beside():
    assert [line.rstrip() for line in printed(50).splitlines()] == [
        "key",
        "  figure  95 % interval",
        "memory_vs_local_distribution",
        "  0.710   0.459 to 0.531  [reached]",
        "peak_memory_vs_shared_full",
        "  1.088   0.459 to 0.531  [reached]",
    ]


def test_what_fits_in_no_other_way_is_a_list():
    assert printed(33).splitlines()[:4] == [
        "memory_vs_local_distribution",
        "  figure  0.710",
        "  95 % interval  0.459 to 0.531",
        "  [reached]",
    ]
