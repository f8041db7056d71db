"""Compiled code is kept from one process to the next, so that each of these is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from faasmoe.experts.kernels.cache import CACHE

COMPILES = """
import logging
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
from faasmoe.experts.kernels.compiled import KERNELS, narrow
with KERNELS.told():
    assert narrow(1.0) == 0x3F80
"""


def compiling(cache: str) -> list[str]:
    """What the log of a process says that uses a kernel."""
    environment = {**os.environ, CACHE: cache}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stderr.splitlines()


def test_kernels_are_compiled_once_and_kept_where_the_cache_is(tmp_path: Path) -> None:
    first, again = compiling(str(tmp_path)), compiling(str(tmp_path))
    assert first[-1].startswith("INFO compiled kernels in ")
    assert list(tmp_path.rglob("*.nbc"))
    assert again == []


def test_a_cache_that_cannot_be_written_is_told_with_what_would_help(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = compiling(str(tmp_path / "file" / "cache"))
    assert said[-1].startswith("WARNING compiled kernels in ")
    assert f"{tmp_path}/file/cache: Not a directory; the environment variable {CACHE} names a folder" in said[-1]
    assert not list(tmp_path.rglob("*.nbc"))
