"""Plans for functions on nodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from faasmoe.evaluation.workloads.arrivals import poisson
from faasmoe.evaluation.workloads.ask import Lengths
from faasmoe.planner.cluster import ClusterShape, unevenness
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import Machine, ProcessFootprint
from faasmoe.planner.plan import requests_of
from faasmoe.planner.prediction import predict
from faasmoe.planner.shape import ExpertLayer, ModelShape
from faasmoe.planner.simulation import SimulatedRequests
from tests.unit.planner.states import keeps

SHAPE = ModelShape(
    name="some", layers=(ExpertLayer(64, 8, 20_000_000),) * 24, dense_bytes=2_000_000_000, state=keeps(100_000),
    bytes_per_weight=2, width=2048,
)  # fmt: skip
GIVEN = Conditions(SHAPE, 64 << 30, machine=Machine(cores=4))
SETTING = Setting("shared", 8, 600.0)
FAST = ClusterShape(nodes=2, memory=64 << 30, bandwidth=1e12, round_trip=0.0)


def load(rate: float = 0.05) -> SimulatedRequests:
    return requests_of(poisson(4, rate, 200 / rate, 0, Lengths(100, 50, 0.3)))


def test_unevenness_falls_to_one_when_all_experts_are_touched() -> None:
    touched, factor = unevenness(64, 4)
    assert (touched[0], touched[-1]) == (1, 64)
    assert factor[0] == 4  # one expert is on one node of four
    assert factor[-1] == pytest.approx(1)
    assert np.all(np.diff(factor) < 0.05)


def test_unevenness_is_that_of_drawn_experts() -> None:
    draw, hosts = np.random.default_rng(1), np.arange(60) % 3
    busiest = [np.bincount(hosts[draw.permutation(60)[:4]], minlength=3).max() for _ in range(20_000)]
    touched, factor = unevenness(60, 3)
    assert np.interp(4, touched, factor) == pytest.approx(np.mean(busiest) * 3 / 4, rel=0.05)


def test_nodes_without_an_expert_of_a_layer_bring_nothing() -> None:
    few, many = unevenness(8, 8), unevenness(8, 16)
    np.testing.assert_allclose(many[1], 2 * few[1])


def test_functions_take_the_memory_of_nodes() -> None:
    alone = predict(load(), SETTING, replace(GIVEN, memory=16 << 30))
    assert not alone.possible  # 32.7 GB of weights
    nodes = replace(GIVEN, memory=16 << 30, cluster=ClusterShape(nodes=3, memory=16 << 30))
    spread = predict(load(), SETTING, nodes)
    assert spread.possible
    assert spread.memory_budget is None
    assert spread.memory["platform"] == pytest.approx(3 * ProcessFootprint().platform, rel=0.01)
    small = predict(load(), SETTING, replace(nodes, cluster=ClusterShape(nodes=3, memory=8 << 30)))
    assert small.memory_budget == pytest.approx(8 << 30, rel=0.01)
    assert small.memory["instances"] < 3 * 8 << 30


def test_an_orchestrators_machine_that_is_too_small_is_said() -> None:
    assert not predict(load(), SETTING, replace(GIVEN, memory=1 << 30, cluster=FAST)).fits


def test_nodes_are_quicker_by_what_experts_take_and_slower_by_the_network() -> None:
    alone = load(rate=0.002)
    one = predict(alone, SETTING, GIVEN).time_per_output_token["p50"]
    two = predict(alone, SETTING, replace(GIVEN, cluster=FAST)).time_per_output_token["p50"]
    reading = 24 * 8 * 20e6 / GIVEN.machine.bandwidth
    touched, factor = unevenness(64, 2)
    assert one - two > reading * (1 - np.interp(8, touched, factor) / 2) * 0.9
    slow = predict(alone, SETTING, replace(GIVEN, cluster=replace(FAST, round_trip=1e-3)))
    assert slow.time_per_output_token["p50"] - two == pytest.approx(24e-3, rel=0.05)
    wire = replace(FAST, bandwidth=1.25e8)
    assert wire.wire_seconds(2048, 8) == 2048 * (2 * 2 + 4 * 8) / 1.25e8
    thin = predict(alone, SETTING, replace(GIVEN, cluster=wire)).time_per_output_token["p50"]
    assert thin - two == pytest.approx(24 * wire.wire_seconds(2048, 8), rel=0.05)


def test_a_thousand_nodes() -> None:
    shape = replace(SHAPE, layers=(ExpertLayer(256, 8, 44_000_000),) * 58, dense_bytes=40 << 30)
    machine = Machine(cores=32, bandwidth=400e9, operations=4e12)
    cluster = ClusterShape(nodes=1000, memory=2 << 30)
    given = replace(GIVEN, shape=shape, machine=machine, memory=128 << 30, cluster=cluster)
    prediction = predict(load(), Setting("shared", 1, 600.0), given)
    assert prediction.possible
    assert prediction.functions == 256 * 58
