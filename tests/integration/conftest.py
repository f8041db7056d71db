"""What the tests of the sandbox share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms.local.sandbox import Sandbox, prepare


@pytest.fixture
def kept() -> Sandbox:
    """The sandbox of this machine. Tests that need all of it skip where the kernel lacks some."""
    made = prepare()
    if not made.landlock_abi:
        pytest.skip("this kernel has no Landlock")
    if not made.filtered:
        pytest.skip("this kernel has no seccomp filters")
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"weights")
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.fixture
def runtime() -> Iterator[Path]:
    """An empty folder for run folders, with a path that leaves room for names of sockets."""
    with tempfile.TemporaryDirectory(prefix="run-") as folder:
        yield Path(folder)
