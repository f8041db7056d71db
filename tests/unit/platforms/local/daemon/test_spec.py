from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faasmoe.platforms.local.daemon.pool import resolved
from tests.unit.platforms.local.daemon.pools import SPEC


def test_a_spec_without_a_keep_alive_gets_the_pools() -> None:
    assert resolved(SPEC, 60.0) == replace(SPEC, keep_alive=60.0)
    for keep_alive in (0.0, 3.0, math.inf):
        given = replace(SPEC, keep_alive=keep_alive, min_instances=1, max_instances=4, concurrency=2)
        assert resolved(given, 60.0) == given


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"handler": "module.attribute"}, "is not module:attribute"),
        ({"handler": "module:attribute" * 9000}, "is not module:attribute"),
        ({"handler": "module:\ud800"}, "is not module:attribute"),
        ({"artifact": Path("/\ud800")}, "artifact of layer3.block1 is no path"),
        ({"artifact": Path("/" + "a" * 4095)}, "artifact of layer3.block1 is no path"),
        ({"min_instances": 2, "max_instances": 1}, "from 2 to 1 instances"),
        ({"min_instances": -1}, "from -1 to 1 instances"),
        ({"max_instances": 0}, "from 0 to 0 instances"),
        ({"concurrency": 0}, "concurrency is at least 1"),
        ({"keep_alive": math.nan}, "keep-alive and memory at least 0"),
        ({"keep_alive": -0.5}, "keep-alive and memory at least 0"),
        ({"memory": -1}, "keep-alive and memory at least 0"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        resolved(replace(SPEC, **changes), 60.0)
    assert "layer3.block1" in str(caught.value)
