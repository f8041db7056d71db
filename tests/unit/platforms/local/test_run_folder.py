from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from faasmoe.platforms.local import run_folder
from faasmoe.platforms.local.run_folder import SOCKET, RunFolder, pools, sweep

AGO = 61.0  # seconds


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def make(at: Path, lock: bool, age: float = 0.0) -> Path:
    at.mkdir()
    (at / SOCKET).touch()
    if lock:
        (at / "lock").touch()
    os.utime(at, (time.time() - age,) * 2)
    return at


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def test_a_run_folder_is_private_and_gone_afterwards(runtime: Path) -> None:
    with RunFolder() as folder:
        assert folder.path.parent == runtime
        assert folder.path.stat().st_mode & 0o7777 == 0o700
        assert folder.path.stat().st_uid == os.getuid()
        (folder.path / "nested").mkdir()
        (folder.path / "nested" / "file").touch()
        path = folder.path
    assert not path.exists()
    folder.close()  # twice is fine


def test_run_folders_leave_each_other_alone(runtime: Path) -> None:
    with RunFolder() as one, RunFolder() as other:
        assert one.path != other.path
        sweep()
        assert one.path.is_dir()
        assert other.path.is_dir()
    assert list(runtime.iterdir()) == []


def test_the_temporary_folder_is_used_without_a_runtime_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(run_folder.tempfile, "tempdir", str(tmp_path))
    assert run_folder.place() == tmp_path


def test_a_new_run_folder_sweeps_what_a_crash_has_left(runtime: Path, caplog: pytest.LogCaptureFixture) -> None:
    crashed = make(runtime / "faasmoe-crashed", lock=True)
    with caplog.at_level(logging.WARNING), RunFolder():
        assert not crashed.exists()
    assert str(crashed) in caplog.text


def test_sweep_removes_only_what_is_abandoned(runtime: Path) -> None:
    unlocked = make(runtime / "faasmoe-unlocked", lock=True)
    old = make(runtime / "faasmoe-old", lock=False, age=AGO)
    fresh = make(runtime / "faasmoe-fresh", lock=False)
    alive = make(runtime / "faasmoe-alive", lock=True, age=100 * AGO)
    other = make(runtime / "other", lock=True, age=AGO)
    file = runtime / "faasmoe-file"
    file.touch()
    with locked(alive):
        sweep()
    assert not unlocked.exists()
    assert not old.exists()
    for kept in (fresh, alive, other):
        assert (kept / SOCKET).exists()
    assert file.exists()


def test_sweep_follows_no_links(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = make(tmp_path_factory.mktemp("elsewhere") / "target", lock=True, age=AGO)
    link = runtime / "faasmoe-link"
    link.symlink_to(elsewhere)
    dangling = runtime / "faasmoe-dangling"
    dangling.symlink_to(runtime / "nowhere")
    linked_lock = make(runtime / "faasmoe-lock", lock=False, age=AGO)
    (linked_lock / "lock").symlink_to(elsewhere / "lock")
    crashed = make(runtime / "faasmoe-crashed", lock=True)
    (crashed / "inside").symlink_to(elsewhere)
    sweep()
    assert not crashed.exists()
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert (linked_lock / SOCKET).exists()
    assert (elsewhere / "lock").exists()
    assert (elsewhere / SOCKET).exists()


def test_sweep_leaves_other_users_folders_alone(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = make(runtime / "faasmoe-theirs", lock=True, age=AGO)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    sweep()
    assert theirs.exists()


def test_orphans_of_an_abandoned_folder_are_killed(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned = str(make(runtime / "faasmoe-abandoned", lock=True))
    alive = make(runtime / "faasmoe-alive", lock=True)
    killed: list[str] = []

    def process(name: str, user: int | None, *command: str, gone: bool = False) -> Any:
        def kill() -> None:
            killed.append(name)
            if gone:
                raise psutil.NoSuchProcess(1)

        uids = None if user is None else SimpleNamespace(real=user)
        return SimpleNamespace(info={"uids": uids, "cmdline": list(command) or None}, kill=kill)

    me = os.getuid()
    processes = [
        process("gone", me, "python", abandoned, gone=True),
        process("orphan", me, "python", "-m", "daemon", abandoned),
        process("another pool's", me, "python", str(alive)),
        process("another user's", me + 1, "python", abandoned),
        process("unknown user's", None, "python", abandoned),
        process("an editor", me, "vi", f"{abandoned}/log"),
        process("a kernel thread", me),
    ]
    monkeypatch.setattr(psutil, "process_iter", lambda _: iter(processes))
    with locked(alive):
        sweep()
    assert killed == ["gone", "orphan"]
    assert not Path(abandoned).exists()


def test_pools_are_those_that_are_alive_and_have_a_daemon(runtime: Path) -> None:
    alive = make(runtime / "faasmoe-alive", lock=True)
    silent = make(runtime / "faasmoe-silent", lock=True)
    (silent / SOCKET).unlink()
    crashed = make(runtime / "faasmoe-crashed", lock=True)
    make(runtime / "faasmoe-old", lock=False, age=AGO)
    (runtime / "faasmoe-link").symlink_to(alive)
    assert pools() == []
    with locked(alive), locked(silent):
        assert pools() == [alive]
    assert crashed.exists()  # looking removes nothing


def test_the_owner_holds_the_lock_until_it_closes(runtime: Path) -> None:
    with RunFolder() as folder:
        (folder.path / SOCKET).touch()
        assert pools() == [folder.path]
        fd = os.open(folder.path / "lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)
    assert pools() == []
    assert list(runtime.iterdir()) == []
