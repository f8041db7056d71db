"""The cache of what is made of checkpoints, such as converted weights. It goes when they are gone or have changed.

A copy is a folder with a manifest, which names the files of the checkpoint and those of the copy. The folder gets its
name when the manifest is in it; a folder without one is no copy and is never removed. Only the files of a copy that its
manifest names are removed.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from faasmoe.util.folders import own_folders

log = logging.getLogger(__name__)

LOCK = "lock"  # held by the process that writes the copy
_MANIFEST, _USED = "copy.json", "used"
_KIND = "FaaSMoE copy of weights, version 1"
PARTIAL = ".partial"  # suffix of a file that is being written

State = tuple[str, int, int]  # a file, its size, and when it was changed, in ns


class _Manifest(msgspec.Struct, frozen=True):
    kind: str
    sources: tuple[State, ...]
    files: tuple[str, ...]  # names in the copy's folder


def state(file: Path) -> State:
    """The state of a checkpoint's file now. Raises `OSError`."""
    found = file.stat()
    return str(file), found.st_size, found.st_mtime_ns


def create(folder: Path, sources: Sequence[State], files: Sequence[str]) -> None:
    """Make the folder of a copy of `sources` that will consist of `files`, unless it is there.

    Raises `OSError`, also if something else is there under this name.
    """
    if _manifest(folder):
        return
    if os.path.lexists(folder):
        raise FileExistsError(
            errno.EEXIST, "this is no copy that FaaSMoE has made, move it away to have one made here", str(folder)
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f"new-{secrets.token_hex(8)}")
    draft.mkdir()
    try:
        (draft / _USED).touch()
        (draft / _MANIFEST).write_bytes(msgspec.json.encode(_Manifest(_KIND, tuple(sources), tuple(files))))
        draft.rename(folder)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not _manifest(folder):  # else another process has made it meanwhile
            raise


def use(folder: Path) -> IO[bytes]:
    """A stream that keeps the copy from being removed while it is open, here or in a process forked from this one."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    stream = open(os.open(folder / _USED, flags, 0o666), "rb")  # noqa: SIM115 - it is the caller's
    fcntl.flock(stream, fcntl.LOCK_SH)
    return stream


def sweep(base: Path) -> None:
    """Remove copies in `base` whose checkpoints are gone or have changed, unless a process uses them."""
    for folder in own_folders.folders(base):
        try:
            manifest = _manifest(folder)
            if manifest and not _current(manifest):
                _remove(folder, manifest)
        except OSError as error:  # of the checkpoint's file system, or of the copy's
            log.warning("cannot tell whether %s is still needed, so it is kept: %s", folder, error)


def _manifest(folder: Path) -> _Manifest | None:
    """None if `folder` is no copy that this user has made. Raises `OSError`."""
    try:
        fd = own_folders.open_own(folder / _MANIFEST)
    except NotADirectoryError:
        return None
    if fd is None:
        return None
    try:
        found = msgspec.json.decode(own_folders.contents(fd), type=_Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    finally:
        os.close(fd)
    plain = all(name == os.path.basename(name) and name not in {"", ".", ".."} for name in found.files)
    return found if found.kind == _KIND and plain else None


def _current(manifest: _Manifest) -> bool:
    try:
        return all(state(Path(file)) == (file, size, time) for file, size, time in manifest.sources)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _remove(folder: Path, manifest: _Manifest) -> None:
    used = own_folders.open_own(folder / _USED)
    try:
        if used is not None:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        files = list(_files(folder, manifest))
        nbytes = sum(file.lstat().st_size for file in files)
        log.info("removing %s, %.2f GB: its checkpoint is gone or has changed", folder, nbytes / 1e9)
        for file in files:
            file.unlink()
        with suppress(OSError):  # the folder stays if it holds other files
            folder.rmdir()
    except BlockingIOError:
        return  # it is used
    finally:
        if used is not None:
            os.close(used)


def _files(folder: Path, manifest: _Manifest) -> Iterator[Path]:
    """Files of a copy that are there, the manifest last: without it nothing else could be removed any more."""
    drafts = [Path(name).with_suffix(PARTIAL).name for name in manifest.files]
    for name in (*manifest.files, *drafts, LOCK, _USED, _MANIFEST):
        with suppress(FileNotFoundError):
            if stat.S_ISREG((folder / name).lstat().st_mode):
                yield folder / name
