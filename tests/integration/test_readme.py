"""The README's text is what `faasmoe generate` prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def example() -> tuple[list[str], str, str]:
    """The command's arguments, the text, and the line below it."""
    found = re.search(
        r"^\$ faasmoe (generate [^\n]*)\n(.*?)\n\n(\d+ tokens at [^\n]*)\n```",
        README.read_text(),
        re.M | re.S,
    )
    assert found
    arguments, text, summary = found.groups()
    return shlex.split(arguments), text.strip(), summary.strip()


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "faasmoe.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


def test_the_demo_text_is_what_generate_prints() -> None:
    arguments, text, summary = example()
    done = run(arguments)
    assert done.stdout.strip() == text

    def without_measurements(line: str) -> str:
        return re.sub(r"at [\d.]+/s|\d+ MiB", "#", line)

    *_, last = done.stderr.strip().splitlines()  # before it come warnings, if any
    assert without_measurements(last) == without_measurements(summary)
