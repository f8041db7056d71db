"""What an installation brings."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_-]+", requirement)
    assert found, requirement
    return found[0].lower()


def test_every_direct_dependency_has_a_version_that_the_tests_ran_with():
    listed = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    wanted = {name_of(requirement) for requirement in listed} - {"faasmoe"}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(line) for line in lines if re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", line)}
    assert len(wanted) > 30
    assert wanted - pinned == set()
