"""Programs that tests need and a machine may lack: a test is skipped by their name where they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

_TESTS = tuple(str(Path(__file__).parent / name) + os.sep for name in ("unit", "integration", "conformance"))


def tool(name: str, package: str) -> str:
    """Path of a program. Skips the test if there is none, and names Debian's `package` that has it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing; on Debian: sudo apt-get install {package}")
    return found


def forbid_bare_names() -> None:
    """From now on a test that starts a program by its bare name fails: elsewhere it may not be there."""
    sys.addaudithook(_refuse_bare_names)


def _refuse_bare_names(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen" and is_bare(arguments[0]) and _asked_by(sys._getframe(1)).startswith(_TESTS):
        raise AssertionError(f"{arguments[0]!r} may be missing elsewhere: have tests.tools.tool find it")


def is_bare(program: object) -> bool:
    """Whether a program would be looked for in PATH."""
    return not os.path.dirname(os.fsdecode(program))  # type: ignore[arg-type]


def _asked_by(frame: FrameType | None) -> str:
    """File of the code that called subprocess."""
    while frame is not None and frame.f_code.co_filename == subprocess.__file__:
        frame = frame.f_back
    return frame.f_code.co_filename if frame else ""
