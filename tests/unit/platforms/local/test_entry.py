from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from faasmoe.platforms.local.entry import pools
from faasmoe.platforms.local.protocol.messages import SOCKET
from faasmoe.util.folders.run_folder import RunFolder


def test_pools_are_the_live_run_folders_that_have_a_daemons_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="run-") as runtime:  # a short path, as names of sockets need
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        assert pools() == []
        with RunFolder() as pool, RunFolder():
            (pool.path / SOCKET).touch()
            crashed = Path(runtime) / "faasmoe" / "crashed"
            crashed.mkdir()
            (crashed / SOCKET).touch()
            (crashed / "run-folder").write_bytes((pool.path / "run-folder").read_bytes())
            assert pools() == [pool.path]
        assert pools() == []
