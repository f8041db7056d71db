"""Options of the platform `nodes`."""

from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.nodes.options import NodesOptions


def test_there_must_be_a_way_to_get_nodes() -> None:
    with pytest.raises(OptionError, match="--platform-option join=HOST:PORT or nodes_file=FILE, or both"):
        NodesOptions().check()
    NodesOptions(nodes_file="nodes").check()
    NodesOptions(join="127.0.0.1:1").check()
