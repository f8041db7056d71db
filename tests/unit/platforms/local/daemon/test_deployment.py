from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from faasmoe.platforms.local.daemon.pool import (
    deployment_from,
)
from tests.unit.platforms.local.daemon.pools import RAW


def test_a_deployment_is_what_the_message_says() -> None:
    given_ = deployment_from(
        {**RAW, "min_instances": 1, "max_instances": 4, "concurrency": 2, "keep_alive": 3}, 60.0
    )
    assert dataclasses.asdict(given_) == {
        **RAW,
        "files": (("/weights/a", 64, 4096),),
        "keep_alive": 3.0,
        "min_instances": 1,
        "max_instances": 4,
        "concurrency": 2,
    }
    assert deployment_from(RAW, 60.0).keep_alive == 60.0
    assert deployment_from({**RAW, "keep_alive": 0}, 60.0).keep_alive == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"handler": "module.attribute"}, "is not module:attribute"),
        ({"min_instances": 2, "max_instances": 1}, "from 2 to 1 instances"),
        ({"min_instances": -1}, "from -1 to 1 instances"),
        ({"max_instances": 0}, "from 0 to 0 instances"),
        ({"concurrency": 0}, "concurrency is at least 1"),
        ({"keep_alive": -0.5}, "keep-alive and memory at least 0"),
        ({"memory": -1}, "keep-alive and memory at least 0"),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        deployment_from({**RAW, **changes}, 60.0)
    assert "layer3.block1" in str(caught.value)


@pytest.mark.parametrize("missing", RAW)
def test_a_deployment_without_a_field_is_refused(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        deployment_from({key: value for key, value in RAW.items() if key != missing}, 60.0)


@pytest.mark.parametrize(
    "changes", [{"memory": None}, {"memory": "much"}, {"concurrency": []}, {"files": 3}, {"files": [["/a", 1]]}]
)
def test_a_deployment_of_other_types_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        deployment_from({**RAW, **changes}, 60.0)
