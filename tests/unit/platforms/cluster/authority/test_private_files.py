"""Files that their owner alone may read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.cluster.authority import private_files


def test_what_is_written_is_its_owners(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    private_files.make_folder(folder)
    private_files.write(folder / "f", b"1")
    private_files.write(folder / "f", b"2")
    assert private_files.read(folder / "f") == b"2"
    assert [each.name for each in folder.iterdir()] == ["f"]
    assert ((folder / "f").stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


def test_what_others_may_read_is_refused(tmp_path: Path) -> None:
    private_files.write(tmp_path / "f", b"1")
    (tmp_path / "f").chmod(0o604)
    with pytest.raises(OptionError, match=r"f: others may read or write it; mend it by: chmod 600 "):
        private_files.read(tmp_path / "f")
    with pytest.raises(OptionError, match="gone: cannot be read: No such file"):
        private_files.read(tmp_path / "gone")
    with pytest.raises(OptionError, match="cannot be written: Not a directory"):
        private_files.write(tmp_path / "f" / "g", b"1")
    with pytest.raises(OptionError, match="cannot be made: Not a directory"):
        private_files.make_folder(tmp_path / "f" / "g")


def test_tables(tmp_path: Path) -> None:
    assert private_files.read_table(tmp_path / "t", int) == {}
    private_files.write(tmp_path / "t", b'{"a":1}')
    assert private_files.read_table(tmp_path / "t", int) == {"a": 1}
    private_files.write(tmp_path / "t", b'{"a":"1"}')
    with pytest.raises(OptionError, match="t: was not written by this program"):
        private_files.read_table(tmp_path / "t", int)


def test_changes_of_a_folder_wait_for_each_other(tmp_path: Path) -> None:
    seen = []

    def change() -> None:
        with private_files.locked(tmp_path / "new"):
            seen.append("second")

    other = threading.Thread(target=change)
    with private_files.locked(tmp_path / "new"):
        other.start()
        other.join(0.05)
        seen.append("first")
    other.join(10)
    assert seen == ["first", "second"]
