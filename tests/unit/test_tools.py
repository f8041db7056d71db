"""Tests find programs, or are skipped by their names."""

from __future__ import annotations

import sys

import pytest

from tests.tools import tool


def start(program: object) -> object:
    """What a test that starts a program is seen to do. Returns the program; raises what forbids it."""
    sys.audit("subprocess.Popen", program, [program], None, None)
    return program


@pytest.mark.parametrize("program", ["curl", b"curl"])
def test_no_test_starts_a_program_that_may_be_missing(program):
    with pytest.raises(AssertionError, match=r"curl.* may be missing elsewhere"):
        start(program)


def test_programs_that_were_found_are_started():
    found = tool("sh", "dash")
    assert [start(program) for program in (sys.executable, found)] == [sys.executable, found]


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        pytest.skip.Exception, match="promtool is missing; on Debian: sudo apt-get install prometheus"
    ):
        tool("promtool", "prometheus")
