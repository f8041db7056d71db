"""What integration tests share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faasmoe.platforms.local.instance.sandbox import Sandbox, prepare
from tests import threads
from tests.integration.servers import Server, serve


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The demo model in float32. Who needs other options, or kills some of it, starts a server of their own."""
    with serve("--keep-alive", "60", "--dtype", "float32", "--block-size", "12") as running:
        yield running


@pytest.fixture(autouse=True, scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers leave nothing in the folders of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True, scope="module")
def _threads() -> Iterator[None]:
    """A module closes what it starts. No fixture of a wider scope has threads in this process."""
    with threads.none_left():
        yield


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
