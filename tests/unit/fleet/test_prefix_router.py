"""Which orchestrator gets a prompt."""

from __future__ import annotations

import random

import pytest

from faasmoe.fleet import prefix_router
from faasmoe.fleet.prefix_router import BLOCK_TOKENS, REQUEST_TOKENS, PrefixRouter

IDLE = {"1": 0, "2": 0, "3": 0}


def prompt(blocks: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(50_000), k=blocks * BLOCK_TOKENS + 5))


def test_a_prompt_goes_where_its_beginning_was_run() -> None:
    router = PrefixRouter()
    assert router.choose("a", prompt(4), {"1": 1, "2": 0}) == "2"
    assert router.choose("a", prompt(4) + prompt(2, seed=1), IDLE) == "2"
    assert router.choose("a", prompt(4)[:-70] + prompt(2, seed=2), IDLE) == "2"  # three blocks are the same


def test_prefixes_are_a_tenants_own() -> None:
    router = PrefixRouter()
    router.choose("a", prompt(4), {"1": 1, "2": 0})
    assert router.choose("b", prompt(4), IDLE) == "1"


def test_tokens_behind_a_difference_do_not_count() -> None:
    router = PrefixRouter()
    router.choose("a", prompt(4), {"1": 1, "2": 0})
    assert router.choose("a", (7, *prompt(4)[1:]), IDLE) == "1"


def test_a_prefix_is_given_up_for_an_orchestrator_that_has_much_less_to_do() -> None:
    blocks = REQUEST_TOKENS // BLOCK_TOKENS * 2
    router = PrefixRouter()
    router.choose("a", prompt(blocks), {"1": 9, "2": 0})
    assert router.choose("a", prompt(blocks), {"1": 0, "2": 2}) == "1"  # equal: the first
    assert router.choose("b", prompt(blocks, seed=3), {"1": 1, "2": 0}) == "2"
    assert router.choose("b", prompt(blocks, seed=3), {"1": 0, "2": 1}) == "2"


def test_both_orchestrators_that_have_run_a_prompt_count() -> None:
    router = PrefixRouter()
    router.choose("a", prompt(4), {"1": 9, "2": 0, "3": 9})
    router.choose("a", prompt(4), {"1": 9, "2": 9, "3": 0})
    assert router.choose("a", prompt(4), {"1": 0, "2": 1, "3": 0}) == "3"


def test_short_prompts_go_to_the_least_busy() -> None:
    router = PrefixRouter()
    assert router.choose("a", (1, 2), {"1": 2, "2": 1, "3": 1}) == "2"
    assert router.choose("a", (1, 2), {"1": 2, "2": 3, "3": 2}) == "1"


def test_an_orchestrator_that_has_ended_has_no_prefixes() -> None:
    router = PrefixRouter()
    router.choose("a", prompt(4), {"1": 1, "2": 0})
    router.forget("2")
    assert router.choose("a", prompt(4), IDLE) == "1"


def test_the_oldest_blocks_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_router, "MOST_BLOCKS", 6)
    router = PrefixRouter()
    router.choose("a", prompt(4), {"1": 1, "2": 0})
    router.choose("a", prompt(4, seed=1), {"1": 1, "2": 0})  # two of the first prompt's blocks are left
    assert router.choose("a", prompt(4), IDLE) == "1"
    assert router.choose("a", prompt(4, seed=1), {"1": 1, "2": 0}) == "2"
