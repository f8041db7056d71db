"""Private folders for the sockets and files of running processes, and the removal of those that a crash left behind.

All run folders of a user lie in one parent folder that nobody else can enter. A run folder holds two files:

- the marker, whose contents make it a run folder. The owner, the process that made the folder, holds a lock on it until
  it ends, however it ends;
- the members' file, on which the owner and all processes that inherit its descriptor hold a lock. The lock tells which
  processes outlived a dead owner.

Nothing without a marker is removed, and no process is killed that does not hold the lock of the members' file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from faasmoe.errors import OptionError, brief
from faasmoe.util.closeable import Closeable
from faasmoe.util.folders import own_folders
from faasmoe.util.folders.lock_holders import end_holders

log = logging.getLogger(__name__)

_FILES = _MARKER, _MEMBERS = "run-folder", "members"
_CONTENTS = b"FaaSMoE run folder, version 1\n"
_DRAFT = "new-"
_NAME_LENGTH = 8  # of a run folder, as `mkdtemp` makes them
_LONGEST_SOCKET = 24  # bytes of the longest name of a socket in a run folder
_LONGEST_PATH = 107  # bytes; unix(7): 108 with the zero at the end
_KILL_SECONDS = 5.0
_RUNTIME = "XDG_RUNTIME_DIR"


def place() -> Path:
    """The parent of this user's run folders, which need not exist yet. Raises `OptionError` if there is no place."""
    if given := os.environ.get(_RUNTIME):
        return Path(given).absolute() / "faasmoe"
    try:
        return Path(tempfile.gettempdir()).absolute() / f"faasmoe-{os.getuid()}"
    except FileNotFoundError as error:
        raise OptionError(f"no folder for run files: {brief(error)}; {_advice()}") from error


class RunFolder(Closeable):
    """A folder for this user alone (mode 0700), from now until `close`.

    `path` is the folder. `members` is a descriptor for processes that work in the folder to inherit (`pass_fds`): the
    next sweep finds and ends those that outlive the owner. Raises `OptionError` if the folder cannot be made.
    """

    def __init__(self) -> None:
        parent = place()
        _check_depth(parent)
        with writing(parent):
            with suppress(FileExistsError):
                parent.mkdir(0o700)
            sweep()
            self.path, self._folder, self._marker, self.members = _make(parent)

    def close(self) -> None:
        """Remove the folder. May be called twice."""
        if self._marker < 0:
            return
        if own_folders.is_same(self._folder, self.path):
            _remove(self.path)
        else:
            log.warning("%s is not the run folder that was made there; it stays", self.path)
        for fd in (self._folder, self.members, self._marker):
            os.close(fd)
        self._folder = self._marker = self.members = -1


def live() -> list[Path]:
    """This user's run folders whose owner is alive. Raises `OptionError` if the parent of run folders is unsafe."""
    return [folder for folder in _candidates() if _is_alive(folder)]


def sweep() -> None:
    """End the processes that still work in run folders whose owner has died, and remove the folders.

    Raises `OptionError` if the parent of run folders is unsafe.
    """
    for folder in _candidates():
        try:
            with _claimed(folder) as abandoned:
                if abandoned:
                    log.warning("removing %s, which a crash has left", folder)
                    if _end_members(folder):
                        _remove(folder)
        except OSError as error:
            log.warning("%s, which a crash has left, cannot be removed: %s", folder, brief(error))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an `OSError` of a block that writes into `folder` into an `OptionError` with advice."""
    try:
        yield
    except OSError as error:
        raise OptionError(f"{folder}: no run files can be written there: {brief(error)}; {_advice()}") from error


def _advice() -> str:
    given = os.environ.get(_RUNTIME)
    if given:
        return f"{_RUNTIME} is {given}: name another folder by it, or unset it to use the temporary folder"
    return f"name a folder of yours by {_RUNTIME}, or another temporary folder by TMPDIR"


def _check_depth(parent: Path) -> None:
    most = _LONGEST_PATH - _LONGEST_SOCKET - _NAME_LENGTH - 2
    if (length := len(os.fsencode(parent))) > most:
        raise OptionError(
            f"{parent}: a path of {length} bytes, and {most} are the most, or sockets in run folders have no room "
            f"for their names; {_advice()}"
        )


def _candidates() -> list[Path]:
    """Folders that may be run folders. Raises `OptionError` if others can put anything beside them."""
    parent = place()
    try:
        found = parent.lstat()
    except FileNotFoundError:
        return []
    wrong = None
    if not stat.S_ISDIR(found.st_mode):
        wrong = "is no folder"
    elif found.st_uid != os.getuid():
        wrong = f"belongs to user {found.st_uid}, not to {os.getuid()}"
    elif found.st_mode & 0o077:
        wrong = f"has mode {stat.S_IMODE(found.st_mode):04o}, which lets others in"
    if wrong:
        raise OptionError(
            f"{parent}: {wrong}; run folders need a folder of this user with mode 0700. Mend it, "
            f"remove it, or use another place: {_advice()}"
        )
    return list(own_folders.folders(parent))


def _make(parent: Path) -> tuple[Path, int, int, int]:
    """A run folder, and descriptors of it and of its two files, all locked. It gets its name when it is complete."""
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=parent))
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, draft, ignore_errors=True)
        folder = _open(draft, os.O_RDONLY | os.O_DIRECTORY, undo)
        fcntl.flock(folder, fcntl.LOCK_SH)  # for systemd-tmpfiles, which removes what is old and not locked
        marker, members = (_open(draft / name, os.O_RDWR | os.O_CREAT | os.O_EXCL, undo) for name in _FILES)
        fcntl.flock(members, fcntl.LOCK_SH)
        fcntl.flock(marker, fcntl.LOCK_EX)
        os.write(marker, _CONTENTS)  # from now on it is a run folder, and alive
        path = parent / draft.name.removeprefix(_DRAFT)
        draft.rename(path)
        undo.pop_all()
    return path, folder, marker, members


def _open(path: Path, flags: int, undo: ExitStack) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    undo.callback(os.close, fd)
    return fd


def _is_alive(folder: Path) -> bool:
    marker = _marker(folder)
    if marker is None:
        return False
    try:
        return not _locked(marker, fcntl.LOCK_SH)
    finally:
        os.close(marker)


@contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Yield whether this is a run folder whose owner has died. If so, no other sweep removes it. Raises `OSError`."""
    marker = _marker(folder)
    if marker is None:
        yield False
        return
    try:
        # it may have been removed after it was opened
        yield _locked(marker, fcntl.LOCK_EX) and own_folders.is_same(marker, folder / _MARKER)
    finally:
        os.close(marker)


def _marker(folder: Path) -> int | None:
    """A descriptor of the folder's marker; None if this is no run folder."""
    marker = own_folders.open_own(folder / _MARKER)
    if marker is not None and own_folders.contents(marker) != _CONTENTS:
        os.close(marker)
        return None
    return marker


def _locked(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_members(folder: Path) -> bool:
    """End the processes that work in a folder without owner. Returns whether all have ended."""
    members = own_folders.open_own(folder / _MEMBERS)
    if members is None:  # another sweep was cut short
        return True
    try:
        if not _locked(members, fcntl.LOCK_EX):
            end_holders(members, _KILL_SECONDS)
        gone = _locked(members, fcntl.LOCK_EX)
    finally:
        os.close(members)
    if not gone:
        log.warning("%s stays: a process still holds %s and cannot be ended", folder, folder / _MEMBERS)
    return gone


def _remove(folder: Path) -> None:
    """Remove a run folder, the marker last, so that a later sweep finds a folder that was not removed whole."""
    try:
        for entry in sorted(folder.iterdir()):
            if entry.name == _MARKER:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # what is left is told below
            else:
                entry.unlink(missing_ok=True)  # its process may remove a socket at the same time
        if left := [entry.name for entry in folder.iterdir() if entry.name != _MARKER]:
            log.warning("%s cannot be removed: %s is left", folder, ", ".join(left))
            return
        (folder / _MARKER).unlink()
        folder.rmdir()
    except OSError as error:
        log.warning("%s cannot be removed: %s", folder, brief(error))
