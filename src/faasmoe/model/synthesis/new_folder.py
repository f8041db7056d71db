"""A folder that is written whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faasmoe.errors import OptionError, brief


def check_new(folder: Path, nbytes: int = 0) -> None:
    """Raises `OptionError` if `folder` is not new or empty, or so many bytes have no room where it is to be."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OptionError(f"--out {folder}: is not an empty folder")
        there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise _unwritable(folder, error) from error
    if nbytes > free:
        raise OptionError(
            f"--out {folder}: needs {nbytes / 1e9:.2f} GB, and {there} has {free / 1e9:.2f} GB left on its disk"
        )


@contextmanager
def new_folder(folder: Path, nbytes: int) -> Iterator[None]:
    """Make `folder`, into which about `nbytes` are written in here. If that fails, all is as it was.

    Raises `OptionError` as `check_new` does, and if it cannot be written.
    """
    check_new(folder, nbytes)
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:  # a signal as well
        with suppress(OSError):
            _empty(folder)
        for each in made:
            with suppress(OSError):  # it was not made, or somebody has put something into it
                each.rmdir()
        if isinstance(error, OSError):
            raise _unwritable(folder, error) from error
        raise


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for each in folder.iterdir():
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()


def _unwritable(folder: Path, error: OSError) -> OptionError:
    return OptionError(f"--out {folder}: cannot be written: {brief(error)}")
