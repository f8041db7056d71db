"""Pools and instances that no process stands behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.local.daemon.pool import INSTANCE_BYTES, FunctionState, InstanceState, Pool, resolved
from faasmoe.platforms.local.protocol.stats_page import InstanceStats

MIB = 1 << 20
SECOND = 1_000_000_000
NOW = 1000 * SECOND
SPEC = FunctionSpec(
    name="layer3.block1",
    handler="module:attribute",
    artifact=Path("/weights"),
    memory=10 * MIB,
    files=(FileRange(Path("/weights/a"), 64, 4096),),
)
CHARGE = SPEC.memory + INSTANCE_BYTES  # of an instance of `SPEC`


def function_spec(name: str = "f", **changes: Any) -> FunctionSpec:
    return resolved(replace(SPEC, name=name, **changes), 60.0)


def pool_of(budget: int | None, *specs: FunctionSpec) -> Pool:
    pool = Pool(budget)
    pool.functions = {spec.name: FunctionState(spec) for spec in specs}
    return pool


def start(
    pool: Pool, function: FunctionState, kept: bool = False, mapped: bool = True, **figures: int
) -> InstanceState:
    """An instance that was activated two seconds ago."""
    record = InstanceStats(activated=NOW - 2 * SECOND, last_used=NOW - SECOND, **figures)
    if mapped:
        record.forked, record.mapped = NOW - 2 * SECOND + 5_000_000, NOW - SECOND
    running = InstanceState(function, f"/{function.spec.name}/{function.counts['cold_starts']}.sock", record, kept)
    pool.add(running)
    return running


def answer(running: InstanceState, *nanoseconds: int) -> None:
    """The instance has answered calls."""
    for duration in nanoseconds:
        if not running.record.invocations:
            running.record.touched, running.record.first_call = NOW, duration
        running.record.invocations += 1
        running.record.latency[4] += 1  # as if they all took two times the shortest
