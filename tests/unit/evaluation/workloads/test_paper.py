from __future__ import annotations

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.paper import TASKS, paper, task_sets


def test_a_round_has_thirty_requests_five_of_each_tenant() -> None:
    asks = list(paper())
    assert len(asks) == 30
    by_tenant: dict[str, set[object]] = {}
    for ask in asks:
        by_tenant.setdefault(ask.tenant, set()).add(ask.prompt)
        assert ask.time is None
    assert len(by_tenant) == 6
    assert all(len(prompts) == len(TASKS) for prompts in by_tenant.values())


def test_no_two_prompts_are_alike_and_subjects_differ() -> None:
    prompts = [p for tasks in task_sets().values() for own in tasks.values() for p in own]
    assert len(set(prompts)) == len(prompts) == 60


def test_seeds_order_the_same_requests_differently() -> None:
    assert list(paper(2, seed=3)) == list(paper(2, seed=3))
    assert list(paper(seed=3)) != list(paper(seed=4))
    assert set(paper(seed=3)) == set(paper(seed=4))


def test_more_tenants_than_subjects_have_their_own_names() -> None:
    assert len({ask.tenant for ask in paper(tenants=32)}) == 32


def test_nonsense_is_refused_at_once() -> None:
    with pytest.raises(OptionError, match="rounds 0"):
        paper(0)
