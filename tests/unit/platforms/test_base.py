from __future__ import annotations

import pytest

from faasmoe.platforms.base import Capabilities
from faasmoe.platforms.inline.platform import InlinePlatform


def test_an_operator_is_told_nothing_of_a_platform_that_lacks_nothing() -> None:
    assert Capabilities().missing() == []


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [(Capabilities(autoscaling=False), "to zero"), (Capabilities(isolation=False), "dies, hangs")],
)
def test_an_operator_is_told_what_a_platform_lacks(capabilities: Capabilities, said: str) -> None:
    (sentence,) = capabilities.missing()
    assert said in sentence


def test_functions_in_the_calling_process_are_neither_scaled_nor_isolated() -> None:
    with InlinePlatform() as platform:
        assert len(platform.capabilities.missing()) == 2
