from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from faasmoe.experts.file_state import FileState, open_regular


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"weights")
    return path


def test_a_file_that_nobody_touches_stays_as_it_is(file: Path) -> None:
    before = FileState.read(file)
    file.read_bytes()
    file.chmod(0o400)
    fd, opened = open_regular(file)
    os.close(fd)
    assert before == opened
    assert before.difference(opened) == ""


def test_what_has_happened_to_a_file_is_told(file: Path) -> None:
    before = FileState.read(file)
    twin = file.with_name("twin")
    shutil.copy2(file, twin)  # the same bytes and time
    assert before.difference(FileState.read(twin)) == "was replaced by another file"
    os.utime(file, ns=(1, 1))
    assert before.difference(FileState.read(file)) == "was written to"
    file.write_bytes(b"we")
    assert before.difference(FileState.read(file)) == "was changed from 7 to 2 bytes"


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(("make", "said"), [(_pipe, "a named pipe"), (_folder, "a folder"), (_device, "a device")])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, make, said: str) -> None:
    make(tmp_path / "x")
    for read in (FileState.read, open_regular):
        with pytest.raises(OSError, match=said):
            read(tmp_path / "x")


def test_a_descriptor_that_is_refused_is_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(OSError, match="named pipe"):
            open_regular(tmp_path / "x")
    assert len(os.listdir("/proc/self/fd")) == before
