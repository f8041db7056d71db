"""What the tests of the sandbox share."""

from __future__ import annotations

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
