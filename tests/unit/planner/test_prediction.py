from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.workloads.arrivals import bursty, poisson
from faasmoe.evaluation.workloads.ask import Ask, Lengths
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.plan import make_plan as load_plan
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import Machine, ProcessFootprint
from faasmoe.planner.plan import make_plan, requests_of, usual_block_sizes
from faasmoe.planner.prediction import Prediction, predict
from faasmoe.planner.shape import ExpertLayer, ModelShape, shape_of
from faasmoe.planner.simulation import SimulatedRequests
from tests.unit.planner.states import keeps

SHAPE = ModelShape(
    name="small", layers=(ExpertLayer(60, 4, 1_000_000),) * 6, dense_bytes=50_000_000, state=keeps(10_000),
    bytes_per_weight=2, width=1024,
)  # fmt: skip
GIVEN = Conditions(SHAPE, 64 << 30, machine=Machine(cores=2))


def one_at_a_time(count: int, pause: float, prompt: int = 20, answer: int = 50) -> SimulatedRequests:
    return requests_of(Ask(pause * n, f"t{n % 3}", prompt, answer) for n in range(count))


def told(setting: Setting, requests: SimulatedRequests, given: Conditions = GIVEN) -> Prediction:
    return predict(requests, setting, given)


def test_invocations_of_single_requests_are_those_of_single_tokens() -> None:
    prediction = told(Setting("shared", 60, 60.0), one_at_a_time(20, 30.0))
    assert prediction.invocations_per_token == pytest.approx(6)  # a prompt and 49 tokens, six layers each
    prediction = told(Setting("shared", 1, 60.0), one_at_a_time(20, 30.0))
    prompt = 60 * (1 - (56 / 60) ** 20)
    assert prediction.invocations_per_token == pytest.approx(6 * (49 * 4 + prompt) / 50, rel=1e-3)


def test_with_long_keep_alive_everything_is_there_and_nothing_starts() -> None:
    prediction = told(Setting("shared", 10, 600.0), one_at_a_time(50, 30.0))
    foot = ProcessFootprint()
    assert prediction.functions == 36
    assert prediction.memory["instances"] == pytest.approx(360_000_000 + 36 * foot.instance, rel=1e-3)
    assert prediction.memory["platform"] == foot.platform
    assert prediction.cold_starts_per_request == pytest.approx(0, abs=1e-3)
    assert prediction.memory_mean == pytest.approx(prediction.memory_peak, rel=1e-3)


def test_with_short_keep_alive_every_request_starts_what_it_touches() -> None:
    requests = one_at_a_time(50, 1000.0)
    prediction = told(Setting("shared", 10, 5.0), requests)
    assert prediction.cold_starts_per_request == pytest.approx(36, rel=0.01)
    assert prediction.memory["instances"] < 0.02 * 360_000_000
    assert prediction.memory["platform"] < 0.4 * ProcessFootprint().platform  # the zygote goes after five minutes
    foot = ProcessFootprint()  # the orchestrator goes after 300 s of each 1000, its template after 600
    loaded = foot.orchestrator + SHAPE.dense_bytes + prediction.kv_cache
    assert prediction.memory["orchestrator"] == pytest.approx(
        0.6 * loaded + 0.3 * foot.each_orchestrator(SHAPE.width), rel=0.02
    )
    warm = told(Setting("shared", 10, 6000.0), requests)
    assert prediction.end_to_end["p50"] > warm.end_to_end["p50"] + 30 * GIVEN.machine.fork


def test_scarce_memory_shortens_keep_alive_and_never_overflows() -> None:
    requests = one_at_a_time(50, 10.0)
    ample = told(Setting("shared", 10, 600.0), requests)
    assert ample.memory_budget is None
    short = replace(GIVEN, memory=int(ample.memory_peak - 200_000_000))
    scarce = told(Setting("shared", 10, 600.0), requests, short)
    assert scarce.fits
    assert scarce.memory_peak <= short.memory
    assert scarce.memory_budget
    assert scarce.cold_starts_per_request > 100
    assert not told(Setting("shared", 10, 600.0), requests, replace(GIVEN, memory=480 << 20)).fits


def test_private_orchestrators_cost_memory_and_share_no_steps() -> None:
    requests = requests_of(poisson(6, 1.0, 600, lengths=Lengths(20, 50)))
    shared, private = (told(Setting(strategy, 10, 60.0), requests) for strategy in ("shared", "private"))
    assert private.memory["orchestrator"] - shared.memory["orchestrator"] == pytest.approx(
        5 * ProcessFootprint().each_orchestrator(SHAPE.width), rel=0.05
    )
    assert private.invocations_per_token > 1.05 * shared.invocations_per_token
    assert private.end_to_end["p50"] > shared.end_to_end["p50"]
    rare = requests_of(bursty(100, 0.02, 100_000, lengths=Lengths(20, 50)))
    idle = told(Setting("private", 10, 60.0), rare)
    assert idle.memory["orchestrator"] < 0.9 * private.memory["orchestrator"]  # most tenants are silent


def test_what_a_machine_cannot_do_is_said() -> None:
    requests = requests_of(poisson(6, 50.0, 60, lengths=Lengths(20, 50)))
    prediction = told(Setting("shared", 10, 60.0), requests)
    assert prediction.utilisation > 1
    plan = make_plan(requests, [prediction.setting], GIVEN)
    assert plan.best is None
    assert "times what this machine can do" in plan.reason
    plan = make_plan(one_at_a_time(5, 10.0), [prediction.setting], replace(GIVEN, memory=100 << 20))
    assert "hold no setting" in plan.reason


def test_the_recommended_setting_is_cheapest_of_the_quick() -> None:
    requests = one_at_a_time(60, 20.0)
    settings = [Setting("shared", block, keep) for block in (1, 10, 60) for keep in (2.0, 60.0)]
    plan = make_plan(requests, settings, GIVEN)
    assert plan.best is not None
    fastest = min(one.end_to_end["p95"] for one in plan.predictions)
    quick = [one for one in plan.predictions if one.end_to_end["p95"] <= 1.3 * fastest]
    assert plan.best.cost_per_hour == min(one.cost_per_hour for one in quick)
    assert plan.best.cost_per_hour == pytest.approx(
        plan.best.busy_gb_seconds_per_hour * 0.00001552207
        + plan.best.idle_gb_seconds_per_hour * 0.00000388054
        + plan.best.invocations_per_hour * 0.2e-6
    )


def test_ten_thousand_tenants_and_256_experts_of_60_layers() -> None:
    shape = ModelShape(
        name="large", layers=(ExpertLayer(256, 8, 88_080_384),) * 60, dense_bytes=36_000_000_000,
        state=keeps(5_000_000), bytes_per_weight=2, width=7168,
    )  # fmt: skip
    given = Conditions(shape, 2000 << 30, machine=Machine(cores=64, bandwidth=4e12, operations=1e15))
    requests = requests_of(bursty(10_000, 0.1, 7200, lengths=Lengths(100, 100, 0.5)))
    plan = make_plan(requests, [Setting("shared", size, 60.0) for size in usual_block_sizes(shape)], given)
    assert plan.best is not None
    assert {one.functions for one in plan.predictions} == {60 * -(-256 // s) for s in (1, 5, 10, 20, 32, 256)}


def test_shapes_are_those_of_the_models() -> None:
    demo = shape_of(None)  # what `faasmoe inspect` says of it
    assert (demo.dense_bytes, demo.expert_bytes, len(demo.layers)) == (5_264_256, 26_542_080, 6)
    assert demo.state.nbytes(1) == 7 * 2 * 192 * 2
    assert demo.width == 192
    qwen = shape_of("qwen1.5-moe-a2.7b")
    assert len(qwen.layers) == 24
    assert qwen.layers[0] == ExpertLayer(60, 4, 17_301_504)
    assert qwen.table_bytes == 2 * 151_936 * 2048
    assert demo.table_bytes == 0  # it is the head as well
    assert qwen.dense_bytes + qwen.expert_bytes == pytest.approx(2 * 14.3e9, rel=0.01)
    assert shape_of("qwen1.5-moe-a2.7b", "float32", layers=2).layers[0].expert_bytes == 2 * 17_301_504
    with pytest.raises(OptionError, match="published geometries only"):
        shape_of(None, layers=2)


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_shapes_of_converted_models_are_those_that_are_served(quantize: str) -> None:
    demo, served = shape_of(None, quantize=quantize), load_plan(resolve(None), quantize=quantize)
    assert demo.dense_bytes == served.dense_bytes
    assert demo.expert_bytes == sum(block.artifact.memory for block in served.blocks)
    assert demo.bytes_per_weight == pytest.approx({"int8": 1, "int4": 0.6}[quantize], rel=0.2)
    with pytest.raises(OptionError, match=f"--dtype float32: {quantize} weights compute in bfloat16"):
        shape_of(None, "float32", quantize=quantize)


@pytest.mark.parametrize("strategy", ["shared", "private"])
def test_in_a_closed_loop_requests_follow_each_other(strategy: str) -> None:
    closed = requests_of(Ask(None, f"t{n % 6}", 20, 50) for n in range(30))
    assert closed.after.tolist() == [-1] * 6 + list(range(24))
    setting, given = Setting(strategy, 10, 600.0), replace(GIVEN, count_from=0.0)
    fast, slow = (
        told(setting, closed, replace(given, machine=Machine(cores=2, layer=seconds))) for seconds in (1e-4, 1e-2)
    )
    assert slow.end_to_end["p50"] > 2 * fast.end_to_end["p50"]
    # always six at a time
    assert slow.invocations_per_token == pytest.approx(fast.invocations_per_token, rel=0.02)
    as_long = requests_of(Ask(None, "alone", 20, 50) for _ in range(30))
    one_by_one = told(setting, as_long, given)
    assert (
        one_by_one.invocations_per_token
        > (1.0 if strategy == "private" else 2.0) * fast.invocations_per_token * 0.99
    )


def test_one_alone_in_a_closed_loop_is_as_quick_as_with_pauses() -> None:
    setting = Setting("shared", 10, 600.0)
    closed = told(setting, requests_of(Ask(None, "a", 20, 50) for _ in range(20)))
    apart = told(setting, one_at_a_time(20, 30.0))
    assert closed.end_to_end["p50"] == pytest.approx(apart.end_to_end["p50"], rel=1e-3)
    assert closed.time_to_first_token["p50"] == pytest.approx(apart.time_to_first_token["p50"], rel=1e-3)


def test_what_cannot_be_planned_for() -> None:
    with pytest.raises(OptionError, match="no requests"):
        requests_of([])
    with pytest.raises(OptionError, match="--block-size 61: must be 1 to 60"):
        told(Setting("shared", 61, 1.0), one_at_a_time(1, 1.0))
    for at in (0.0, None):
        with pytest.raises(OptionError, match="all come at the start"):
            told(Setting("shared", 10, 60.0), requests_of([Ask(at, "a", 20, 50), Ask(at, "b", 20, 50)]))
    assert np.array_equal(requests_of([Ask(1.0, "a", "a text of 22 chars....", 3)]).prompt, [5])
