"""The operator's guide lists the environment variables that the code names, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_NAME = re.compile(
    r'"((?:FAASMOE|XDG|HF|OMP|OPENBLAS|MKL|MALLOC|TOKENIZERS|NOTIFY|WATCHDOG)_[A-Z_]+)"|environ[^"\n]*"([A-Z_]{3,})"'
)

_READ_BY_LIBRARIES = {"TMPDIR", "XDG_DATA_HOME"}


def test_the_guide_lists_every_environment_variable() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    listed = set(re.findall(r"`([A-Z_]+)`", text.split("## Environment variables")[1].split("\n## ")[0]))
    files = [*ROOT.joinpath("src").rglob("*.py"), ROOT / "scripts" / "setup"]
    there = {one or other for file in files for one, other in _NAME.findall(file.read_text())}
    there |= set(re.findall(r"\$\{([A-Z_]+):-", files[-1].read_text()))
    assert {"FAASMOE_DATABASE", "FAASMOE_CACHE", "FAASMOE_LOG", "PYTHON"} <= there
    assert there - listed == set()
    assert listed - there == _READ_BY_LIBRARIES
