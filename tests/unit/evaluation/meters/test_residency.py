from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters.residency import joined, resident_bytes

PAGE = mmap.PAGESIZE


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(64 * PAGE))
    return str(path)


def test_what_was_just_written_is_there(file: str) -> None:
    assert resident_bytes([(file, 0, 64 * PAGE)]) == 64 * PAGE
    assert resident_bytes([(file, 10, 100)]) == 100
    assert resident_bytes([(file, 0, PAGE), (file, 3 * PAGE, 2 * PAGE)]) == 3 * PAGE


def test_beyond_the_end_there_is_nothing(file: str) -> None:
    assert resident_bytes([(file, 64 * PAGE, PAGE)]) == 0
    assert resident_bytes([]) == 0


def test_neighbours_are_asked_for_at_once() -> None:
    assert joined([("b", 0, 1), ("a", 4, 2), ("a", 0, 4), ("a", 7, 1)]) == [("a", 0, 6), ("a", 7, 1), ("b", 0, 1)]


def test_files_of_which_the_kernel_tells_nothing_are_refused(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(MeasurementError, match="is not writable"):
        resident_bytes([(file, 0, PAGE)])
