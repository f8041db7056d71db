from __future__ import annotations

import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.util.folders import run_folder
from faasmoe.util.folders.run_folder import RunFolder, live, place, sweep, writing

MARKER = "run-folder"
FILE = "something"
CONTENTS = b"FaaSMoE run folder, version 1\n"


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, with a path that leaves room for names of sockets."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield Path(folder)


@pytest.fixture
def parent(runtime: Path) -> Path:
    folder = runtime / "faasmoe"
    folder.mkdir(0o700)
    return folder


def make(at: Path, marker: bytes | None = CONTENTS) -> Path:
    """A run folder as a crash leaves it."""
    at.mkdir()
    (at / FILE).touch()
    (at / "members").touch()
    if marker is not None:
        (at / MARKER).write_bytes(marker)
    return at


@contextmanager
def locked(folder: Path, name: str = MARKER) -> Iterator[None]:
    fd = os.open(folder / name, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_a_run_folder_is_private_and_gone_afterwards(runtime: Path) -> None:
    with RunFolder() as folder:
        assert folder.path.parent == runtime / "faasmoe"
        for private in (folder.path, folder.path.parent):
            assert private.stat().st_mode & 0o7777 == 0o700
            assert private.stat().st_uid == os.getuid()
        assert (folder.path / MARKER).read_bytes() == CONTENTS
        (folder.path / "nested").mkdir()
        (folder.path / "nested" / "file").touch()
        (folder.path / "elsewhere").symlink_to(runtime)
        path = folder.path
    assert not path.exists()
    assert runtime.exists()
    folder.close()  # twice is fine


def test_run_folders_leave_each_other_alone(runtime: Path) -> None:
    with RunFolder() as one, RunFolder() as other:
        assert one.path != other.path
        sweep()
        assert one.path.is_dir()
        assert other.path.is_dir()
    assert list((runtime / "faasmoe").iterdir()) == []


def test_the_temporary_folder_is_used_without_a_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert place() == tmp_path / f"faasmoe-{os.getuid()}"


def test_a_new_run_folder_sweeps_what_a_crash_has_left(parent: Path, caplog: pytest.LogCaptureFixture) -> None:
    crashed = make(parent / "crashed")
    with caplog.at_level(logging.WARNING), RunFolder():
        assert not crashed.exists()
    assert f"removing {crashed}, which a crash has left" in caplog.text


def test_sweep_removes_only_what_has_a_marker_that_nobody_holds(parent: Path) -> None:
    gone = [make(parent / "crashed"), make(parent / "new-crashed")]
    alive = make(parent / "alive")
    kept = [
        alive,
        make(parent / "bare", None),
        make(parent / "other", b"something else\n"),
        make(parent / "cut", b""),
    ]
    with locked(alive):
        sweep()
    assert not any(folder.exists() for folder in gone)
    for folder in kept:
        assert (folder / FILE).exists()


@pytest.mark.parametrize("field", [stat.ST_DEV, stat.ST_UID])
def test_sweep_leaves_other_file_systems_and_other_users_alone(
    parent: Path, monkeypatch: pytest.MonkeyPatch, field: int
) -> None:
    crashed, real = make(parent / "crashed"), Path.lstat

    def lstat(path: Path) -> os.stat_result:
        fields = list(real(path))
        fields[field] += path.name == "crashed"
        return os.stat_result(fields)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lstat)
        sweep()
    assert crashed.exists()
    sweep()
    assert not crashed.exists()


def test_a_folder_stays_while_a_member_lives(
    parent: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crashed = make(parent / "crashed")
    monkeypatch.setattr(run_folder, "end_holders", lambda *_: False)
    with locked(crashed, "members"), caplog.at_level(logging.WARNING):
        sweep()
    assert (crashed / FILE).exists()
    assert "a process still holds" in caplog.text
    sweep()
    assert not crashed.exists()


def test_what_cannot_be_removed_is_told_and_swept_again(
    parent: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crashed = make(parent / "crashed")

    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "unlink", refuse)
        sweep()
    assert f"{crashed} cannot be removed: [Errno 13] Permission denied" in caplog.text
    assert (crashed / MARKER).exists()
    sweep()
    assert not crashed.exists()


def test_close_removes_only_the_folder_that_was_made(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder()
    folder.path.rename(runtime / "moved")
    make(folder.path)
    with caplog.at_level(logging.WARNING):
        folder.close()
    assert f"{folder.path} is not the run folder that was made there" in caplog.text
    assert (folder.path / FILE).exists()
    assert (runtime / "moved" / MARKER).exists()


def test_a_run_folder_is_live_while_its_owner_holds_the_marker(parent: Path) -> None:
    alive, crashed = make(parent / "alive"), make(parent / "crashed")
    make(parent / "bare", None)
    (parent / "link").symlink_to(alive)
    assert live() == []
    with locked(alive):
        assert live() == [alive]
    assert crashed.exists()  # looking removes nothing


def test_there_are_no_run_folders_where_nothing_has_run(runtime: Path) -> None:
    assert live() == []
    assert list(runtime.iterdir()) == []


def test_the_owner_holds_the_locks_until_it_closes(runtime: Path) -> None:
    with RunFolder() as folder:
        assert live() == [folder.path]
        for name in (MARKER, "members"):
            fd = os.open(folder.path / name, os.O_RDWR)
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(fd)
        assert os.path.samestat(os.fstat(folder.members), (folder.path / "members").stat())
        fd = os.open(folder.path, os.O_RDONLY)  # systemd-tmpfiles tries this before it removes what is old
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
    assert live() == []


def test_a_folder_that_cannot_be_made_leaves_nothing(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(
            OptionError, match=r"no run files can be written there: .*No space left.*XDG_RUNTIME_DIR"
        ):
            RunFolder()
    assert list(parent.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


# Parents that are not ours


def test_a_parent_that_lets_others_in_is_refused(parent: Path) -> None:
    parent.chmod(0o755)
    with pytest.raises(OptionError, match=r"faasmoe: has mode 0755, which lets others in; .* XDG_RUNTIME_DIR"):
        RunFolder()
    with pytest.raises(OptionError, match="has mode 0755"):
        live()


def test_a_parent_of_somebody_else_is_refused(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    with pytest.raises(OptionError, match=f"faasmoe: belongs to user {user}, not to {user + 1}"):
        RunFolder()


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_a_parent_that_is_no_folder_is_refused(runtime: Path, kind: str) -> None:
    parent = runtime / "faasmoe"
    if kind == "file":
        parent.touch()
    else:
        parent.symlink_to(runtime if kind == "link" else runtime / "nowhere")
    with pytest.raises(OptionError, match="faasmoe: is no folder"):
        RunFolder()
    assert parent.exists() or parent.is_symlink()
    assert [entry.name for entry in runtime.iterdir()] == ["faasmoe"]


def test_places_that_cannot_be_are_refused_in_one_line(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "missing"))
    with pytest.raises(
        OptionError, match=r"missing/faasmoe: no run files .*XDG_RUNTIME_DIR is .*missing"
    ) as missing:
        RunFolder()
    deep = runtime / ("d" * 60)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    with pytest.raises(OptionError, match=r"a path of \d+ bytes, and 73 are the most.*XDG_RUNTIME_DIR"):
        RunFolder()
    monkeypatch.delenv("XDG_RUNTIME_DIR")

    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/here']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(OptionError, match=r"found in \['/tmp', '/here'\]; name a folder .* TMPDIR") as nowhere:
        RunFolder()
    assert "\n" not in f"{missing.value}{nowhere.value}"


def test_who_writes_is_told_which_folder_and_what_to_do(tmp_path: Path) -> None:
    message = r"no run files can be written there: \[Errno 28\] No space left on device; XDG_RUNTIME_DIR is "
    with pytest.raises(OptionError, match=message), writing(tmp_path):
        raise OSError(28, "No space left on device")
