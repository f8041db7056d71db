"""The project's own engine, in this process.

Experts are in it as well (`shared-full`), or functions of a pool: of one that it starts (`faasmoe-shared`), or of one
that runs already (a tenant's part of `local-distribution`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faasmoe.evaluation.drive import drive
from faasmoe.evaluation.strategies.protocol import Answered, Orders, Played
from faasmoe.evaluation.strategies.registry import DENSE_PART, SHARED_FULL, Player
from faasmoe.evaluation.torch_memory import beyond_cpu_build
from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.experts import PRELOAD
from faasmoe.model.architecture import inspect_architecture, read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import ModelPlan, context_length, make_plan
from faasmoe.orchestrator.loaded_model import LoadedModel
from faasmoe.orchestrator.runtime import Runtime
from faasmoe.platforms.base import Platform
from faasmoe.platforms.registry import find, start

_IN_PROCESS = "inline"  # the platform of a full model
_OWN_BYTES = 362 << 20  # of an orchestrator beside its weights, with torch's build for CPUs


@contextmanager
def serve(orders: Orders) -> Iterator[Player]:
    """A player of workloads, in this process. Raises what loading a model raises."""
    plan = make_plan(resolve(orders.model), _block_size(orders), orders.dtype)
    whole = orders.strategy == SHARED_FULL
    model = LoadedModel(plan, Path(orders.artifacts)) if orders.artifacts else plan

    with Runtime(model, partial(_platform, orders, plan), context_length(plan, None)) as serving:

        def play(asks: Sequence[Ask]) -> Played:
            before = _so_far(serving)
            requests = tuple(map(Answered.of, drive(asks, serving)))
            counts = _so_far(serving) - before
            phases = parts_of_steps(counts)
            if whole:  # nothing is invoked
                return Played(requests=requests, steps=int(counts["steps"]), phases=phases)
            pool = serving.platform.status()
            return Played(
                requests=requests,
                invocations=int(counts["invocations"]),
                cold_starts=int(counts["cold_starts"]),
                steps=int(counts["steps"]),
                phases=phases,
                cold_start_phases=pool.cold_start_phases,
                instances=sum(len(function.instances) for function in pool.functions),
            )

        yield play


def parts_of_steps(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each part of the steps, from what an engine and its dispatch have counted.

    `dense` is everything of the model but the routed experts; `transfer` what a layer's calls take beyond waiting at
    instances and computing there: sending, waking, and waiting for a core.
    """
    invoked = seconds["pack"] + seconds["invoke"] + seconds["combine"]
    return {
        "dense": seconds["forward"] - invoked,
        "routing": seconds["route"],
        "packing": seconds["pack"] - seconds["route"],
        "transfer": max(0.0, seconds["invoke"] - seconds["queue"] - seconds["compute"]),
        "queue": seconds["queue"],
        "compute": seconds["compute"],
        "combine": seconds["combine"],
        "sampling": seconds["sample"],
        "scheduling": seconds["schedule"],
        "accounting": seconds["account"],
    }


def _so_far(serving: Runtime) -> Counter[str]:
    """Everything that is counted, and seconds of everything, since the start."""
    figures, counts = serving.stats(), serving.dispatch.counts
    numbers = {"steps": sum(figures.step_seconds.counts), "invocations": counts.invocations}
    seconds = figures.phases | counts.seconds | counts.inside
    return Counter({**numbers, "cold_starts": counts.cold_starts, **seconds})


def _block_size(orders: Orders) -> int | None:
    if orders.strategy != DENSE_PART:
        return orders.block_size
    architecture = inspect_architecture(read_config(resolve(orders.model).folder))
    return max(experts.num_experts for experts in architecture.experts)


def _platform(orders: Orders, plan: ModelPlan) -> Platform:
    if orders.strategy == SHARED_FULL:
        return start(_IN_PROCESS, PRELOAD)
    if orders.pool:
        return find(orders.platform).require_connect(orders.strategy)(orders.pool)
    return orders.start_platform(**_limits(orders, plan))


def _limits(orders: Orders, plan: ModelPlan) -> dict[str, object]:
    """Options of the platform where all memory is limited: functions get what a step's dense part leaves.

    A step reads the dense part without the embedding table. Weights of functions that stop are dropped from the page
    cache at once, since the kernel would have to guess which ones to drop.
    """
    if orders.memory_limit is None:
        return {}
    config, dense = plan.architecture.text_config, plan.dense_bytes
    if not config.tie_word_embeddings:  # else they are read as output head
        dense -= config.vocab_size * config.hidden_size * plan.dtype.itemsize
    more = beyond_cpu_build()
    budget = max(1, orders.memory_limit - dense - _OWN_BYTES - more.own - more.files)
    return {"memory_budget": budget, "release_page_cache": True}
