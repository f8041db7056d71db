"""All tenants together have used what the platform has measured, whatever happens to its instances."""

from __future__ import annotations

import os
import queue
import random
import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest

from faasmoe.experts import PRELOAD
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan
from faasmoe.model.synthesis.synthesis import _byte_tokenizer
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.registry import start
from faasmoe.protocol.request import GenerationRequest, Piece, SamplingParams
from faasmoe.tenancy.ledger.idle_cost import IdleShares
from tests.tiny import save_tiny

KILLS = 5
CANCELLED = "c3"  # which would otherwise be the last to end


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny("qwen2_moe", folder, vocab_size=257, eos_token_id=256)
    _byte_tokenizer().save_pretrained(folder)
    plan = make_plan(resolve(str(folder)), 4)
    with Runtime(plan, lambda: start("local", PRELOAD, keep_alive=60), 128) as running:
        yield running


def test_the_sum_over_tenants_is_what_the_platform_measured(serving: Runtime) -> None:
    """Work that is lost with an instance is paid by nobody in particular: it is part of what the rest costs."""
    engine, platform = serving.engine, serving.platform
    pieces: queue.SimpleQueue[tuple[str, Piece]] = queue.SimpleQueue()
    chance = random.Random(7)
    tenants = {f"{tenant}{i}": tenant for tenant in ("a", "b", "c") for i in range(4)}
    for i, (name, tenant) in enumerate(tenants.items()):
        tokens = {"a": 60, "b": 25, "c": 25}[tenant] if name != CANCELLED else 90
        params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
        request = GenerationRequest(name, tuple(range(1 + 3 * i)), params, tenant=tenant)
        engine.submit(request, lambda piece, name=name: pieces.put((name, piece)))  # type: ignore[misc]
    kills, ends = 0, dict[str, Piece]()
    while len(ends) < len(tenants):
        name, piece = pieces.get(timeout=60)
        if piece.last:
            ends[name] = piece
        if name == CANCELLED:  # with the first piece that is read; again does no harm
            engine.cancel(CANCELLED)
        if kills < KILLS and chance.random() < 0.05:
            instances = [int(each.id) for status in platform.status().functions for each in status.instances]
            with suppress(ProcessLookupError):
                os.kill(chance.choice(instances), signal.SIGKILL)
            kills += 1
    used = {name: piece.used for name, piece in ends.items()}
    assert all(used.values())
    reasons = {piece.finish_reason for name, piece in ends.items() if name != CANCELLED}
    assert (reasons, ends[CANCELLED].finish_reason, kills) == ({"length"}, "cancelled", KILLS)

    def total(what: str) -> float:
        return sum(getattr(one, what) for one in used.values())

    totals = platform.status().totals
    assert total("invocations") == pytest.approx(totals.invocations, rel=0.01)
    assert total("gb_seconds") == pytest.approx(totals.busy_gb_seconds, rel=0.01)
    assert 0 < total("expert_seconds") <= totals.busy_seconds * 1.01
    assert len(serving.plan.blocks) <= total("cold_starts") * 1.001 <= totals.cold_starts * 1.002  # sums of parts
    assert totals.cold_starts <= len(serving.plan.blocks) + KILLS

    shares, busy = IdleShares(), engine.take_busy()
    shares.note(busy)
    idle = shares.split(totals.instance_gb_seconds)
    assert sum(busy.values()) == pytest.approx(total("gb_seconds"))
    assert idle.keys() == {"a", "b", "c"}
    assert total("gb_seconds") + sum(idle.values()) == pytest.approx(totals.instance_gb_seconds, rel=0.01)
