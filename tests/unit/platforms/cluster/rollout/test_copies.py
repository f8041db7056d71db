from __future__ import annotations

from faasmoe.platforms.cluster.rollout.copies import Copies, CopyState


def test_every_copy_takes_memory_and_only_those_asked_for_are_hosts() -> None:
    copies = Copies()
    copies.memory.update(f=10, g=5)
    copies.put("f", "a", CopyState.READY)
    copies.put("g", "a", CopyState.WARMING)
    copies.put("f", "b", CopyState.STOPPING)
    assert copies.used("a") == 15
    assert copies.used("b") == 10
    assert copies.used("nobody") == 0
    assert copies.warming("a") == 1
    assert copies.hosts((CopyState.READY,), ["a", "b", "nobody"]) == {"f": ("a",)}
    assert copies.hosts((CopyState.READY, CopyState.STOPPING), ["b", "a"]) == {"f": ("b", "a")}
    assert copies.state("f", "b") is CopyState.STOPPING
    copies.remove("f", "b")
    copies.remove("f", "nobody")
    copies.forget("a")
    copies.forget("a")
    assert copies.of("a") == copies.of("b") == {}
