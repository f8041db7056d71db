"""Probes of what a process may do, outside and inside the sandbox of instances."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faasmoe.platforms.local.instance.sandbox import Sandbox

LIBC = ctypes.CDLL(None, use_errno=True)
REFUSED = ("EPERM", "EACCES")


def run_inside(box: Sandbox, probe: Callable[[], Any]) -> Any:
    """What the probe returns in a child that has entered the sandbox, or the name of its error."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read)
            box.enter()
            os.write(write, pickle.dumps(attempt(probe)))
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child died"
    return pickle.loads(answer)


def attempt(probe: Callable[[], Any]) -> Any:
    """What a probe returns; the name of the error number or of the exception if it fails."""
    try:
        return probe()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except (MemoryError, ValueError, AssertionError, RuntimeError) as error:
        return type(error).__name__


def all_inside(box: Sandbox, probes: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    return run_inside(box, lambda: {name: attempt(probe) for name, probe in probes.items()})


def syscall(number: int, *arguments: int) -> int:
    """As libc's, so raises `OSError`."""
    result: int = LIBC.syscall(*map(ctypes.c_long, (number, *arguments)))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def close(*descriptors: int) -> str:
    for descriptor in descriptors:
        os.close(descriptor)
    return "done"


def opened(path: Path | str, flags: int) -> str:
    return close(os.open(path, flags, 0o600))


def status_of_self() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def changes(folder: Path) -> dict[str, Callable[[], Any]]:
    """Everything that changes files of `folder`, which holds `file` and `sub`."""
    file, new = folder / "file", folder / "new"
    return {
        "write": lambda: opened(file, os.O_WRONLY),
        "read and write": lambda: opened(file, os.O_RDWR),
        "append": lambda: opened(file, os.O_WRONLY | os.O_APPEND),
        "truncate at open": lambda: opened(file, os.O_RDONLY | os.O_TRUNC),
        "truncate": lambda: os.truncate(file, 0),
        "create": lambda: opened(new, os.O_RDONLY | os.O_CREAT),
        "unnamed": lambda: opened(folder, os.O_RDWR | os.O_TMPFILE),
        "unlink": lambda: os.unlink(file),
        "rename": lambda: os.rename(file, new),
        "link": lambda: os.link(file, new),
        "symlink": lambda: os.symlink(file, new),
        "mkdir": lambda: os.mkdir(new),
        "rmdir": lambda: os.rmdir(folder / "sub"),
        "mkfifo": lambda: os.mkfifo(new),
    }


def attribute_changes(folder: Path) -> dict[str, Callable[[], Any]]:
    file = folder / "file"
    return {
        "chmod": lambda: os.chmod(file, 0o777),
        "chown": lambda: os.chown(file, os.getuid(), os.getgid()),
        "utime": lambda: os.utime(file, (0, 0)),
        "setxattr": lambda: os.setxattr(file, "user.test", b"1"),
    }


def untouched(folder: Path) -> bool:
    names = sorted(path.name for path in folder.iterdir())
    return names == ["file", "sub"] and (folder / "file").read_bytes() == b"weights"
