"""The README's text is what the command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def test_the_demo_text_is_what_generate_prints() -> None:
    found = re.search(
        r"^\$ \.venv/bin/faasmoe (generate [^\n]*)\n(.*?)\n\n(\d+ tokens at [^\n]*)\n```",
        README.read_text(),
        re.M | re.S,
    )
    assert found
    arguments, text, summary = found.groups()
    command = [sys.executable, "-m", "faasmoe.cli.main", *shlex.split(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == text.strip()

    def without_measurements(line: str) -> str:
        return re.sub(r"at [\d.]+/s|\d+ MiB", "#", line)

    assert without_measurements(done.stderr.strip()) == without_measurements(summary.strip())
