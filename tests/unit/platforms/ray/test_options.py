"""Options of the platform `ray`."""

from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms import registry
from faasmoe.platforms.ray.options import RayOptions


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"address": "ray://head:10001"}, "address ray://head:10001: clients of Ray cannot be used"),
        ({"namespace": "a b"}, "namespace is 'a b': must be a word"),
        ({"node_gib": -1.0}, "node_gib is -1.0: must be at least 0"),
        ({"node_gib": float("nan")}, "node_gib is nan"),
        ({"min_nodes": -1}, "min_nodes is -1"),
        ({"min_nodes": 3, "max_nodes": 2}, "max_nodes is 2: must be 0, or at least 1 and min_nodes"),
        ({"idle_seconds": -1.0}, "idle_seconds is -1.0: must be at least 0 seconds"),
        ({"start_seconds": float("nan")}, "start_seconds is nan"),
    ],
)
def test_values_out_of_range_are_named(given: dict[str, object], error: str) -> None:
    with pytest.raises(OptionError, match=error.replace("(", r"\(")):
        RayOptions(**given)


def test_the_memory_of_a_node_is_given_in_gib() -> None:
    assert RayOptions(node_gib=1.5).node_memory == 3 << 29
    assert RayOptions().node_memory is None


def test_options_are_read_by_name() -> None:
    entry = registry.find("ray")
    assert entry.read(["address=10.0.0.1:6379", "min_nodes=0", "node_gib=8"]) == {
        "address": "10.0.0.1:6379",
        "min_nodes": 0,
        "node_gib": 8.0,
    }
    assert not entry.takes("memory_budget")  # that of a node is not the server's
