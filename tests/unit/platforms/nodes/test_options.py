"""Options of the platform `nodes`."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.nodes.options import NodesOptions


def test_both_files_are_needed(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_text("127.0.0.1:1")
    for missing, given in (("nodes_file", {}), ("secret_file", {"nodes_file": str(tmp_path / "nodes")})):
        with pytest.raises(OptionError, match=f"--platform-option {missing}=FILE"):
            NodesOptions(**given).discovery()
    options = NodesOptions(nodes_file=str(tmp_path / "nodes"), secret_file="s")
    assert [str(node) for node in options.discovery().nodes()] == ["127.0.0.1:1"]
