"""Stages of a start, as people see them."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from faasmoe.cli.progress import Stages


@pytest.mark.parametrize(
    ("stderr", "terminal", "shown"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_each_is_a_line_with_seconds_unless_a_program_reads_the_result(
    stderr: bool, terminal: bool, shown: bool
) -> None:
    text = io.StringIO()
    console = Console(stderr=stderr, force_terminal=terminal, highlight=False, color_system=None)
    console.file = text
    stages = Stages(console)
    stages.begin("loading [model]")
    stages.begin("ready")
    lines = text.getvalue().splitlines()
    assert len(lines) == (2 if shown else 0)
    for line, name in zip(lines, ["loading [model]", "ready"], strict=False):
        assert re.fullmatch(rf" *\d+\.\d s  {re.escape(name)}", line)
    assert stages.seconds >= 0
