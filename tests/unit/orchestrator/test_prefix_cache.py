from __future__ import annotations

import numpy as np

from faasmoe.orchestrator.kv_cache import KVCache
from faasmoe.orchestrator.prefix_cache import LEAST, Prefix, PrefixCache


def prefix(tokens: list[int], tenant: str = "a") -> Prefix:
    return Prefix(tenant, np.array(tokens), KVCache(), len(tokens) + 5)


def test_what_has_most_in_common_is_found() -> None:
    kept = PrefixCache()
    short, long = prefix(list(range(20))), prefix([*range(18), 99, *range(30)])
    assert kept.add(short)
    assert kept.add(long)
    assert kept.find("a", np.array([*range(18), 99, 0, 1, 7])) == (long, 21)
    assert kept.find("a", np.array(list(range(40)))) == (short, 20)
    assert kept.find("a", np.array([*range(LEAST), 7, 7])) is not None
    assert kept.find("a", np.array([*range(LEAST - 1), 7, 7])) is None


def test_one_token_is_always_left_to_compute() -> None:
    kept = PrefixCache()
    kept.add(prefix(list(range(20))))
    found = kept.find("a", np.array(list(range(20))))
    assert found is not None
    assert found[1] == 19
    assert kept.find("a", np.array(list(range(LEAST)))) is None


def test_no_tenant_finds_another_tenants() -> None:
    kept = PrefixCache()
    for tenant in ("a", ""):
        kept.add(prefix(list(range(30)), tenant))
    assert kept.find("b", np.array(list(range(30)))) is None
    for tenant in ("a", ""):
        found = kept.find(tenant, np.array(list(range(30))))
        assert found is not None
        assert found[0].tenant == tenant


def test_only_the_longest_of_a_conversation_is_kept() -> None:
    kept = PrefixCache()
    kept.add(prefix(list(range(20))))
    assert kept.add(prefix(list(range(30))))
    assert (len(kept), kept.capacity) == (1, 35)
    assert not kept.add(prefix(list(range(25))))
    assert (len(kept), kept.capacity) == (1, 35)


def test_the_least_recently_used_goes_first() -> None:
    kept = PrefixCache()
    those = [prefix([i, *range(20 + i)]) for i in range(3)]
    for one in those:
        kept.add(one)
    kept.touch(those[0])
    assert [kept.evict() for _ in range(4)] == [those[1].capacity, those[2].capacity, those[0].capacity, 0]
    assert (len(kept), kept.capacity) == (0, 0)
    assert kept.find("a", np.array([0, *range(20)])) is None
