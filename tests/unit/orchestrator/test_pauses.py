"""Pauses between tries."""

from __future__ import annotations

import pytest

from faasmoe.orchestrator.pauses import Pauses


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_pauses_grow_to_a_most_and_begin_anew_after_success(chance: float) -> None:
    pauses = Pauses(lambda: chance)
    factor = 1 + chance / 4
    assert [pauses.next() for _ in range(3)] == pytest.approx([0.1 * factor, 0.2 * factor, 0.4 * factor])
    assert [pauses.next() for _ in range(20)][-1] == 4 * factor
    pauses.reset()
    assert pauses.next() == pytest.approx(0.1 * factor)
