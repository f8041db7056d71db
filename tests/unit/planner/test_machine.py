"""Footprints follow the installed build of torch."""

from __future__ import annotations

from faasmoe.evaluation import torch_memory
from faasmoe.evaluation.torch_memory import Taken, beyond_cpu_build
from faasmoe.model.adapter.torch_build import TorchBuild
from faasmoe.planner import machine
from faasmoe.planner.machine import ProcessFootprint


def test_figures_are_those_of_the_build_for_cpus_which_nobody_needs_to_measure(monkeypatch):
    monkeypatch.setattr(torch_memory, "installed", lambda: TorchBuild("2.13.0+cpu", None))
    assert beyond_cpu_build.__wrapped__() == Taken(0, 0)
    monkeypatch.setattr(machine, "beyond_cpu_build", beyond_cpu_build.__wrapped__)
    assert ProcessFootprint.here() == ProcessFootprint()


def test_the_template_alone_has_what_another_build_takes(monkeypatch):
    monkeypatch.setattr(machine, "beyond_cpu_build", lambda: Taken(own=130 << 20, files=150 << 20))
    usual, here = ProcessFootprint(), ProcessFootprint.here()
    assert here.orchestrator - usual.orchestrator == 280 << 20
    others = ("gateway", "own", "platform", "instance")
    assert [getattr(here, name) for name in others] == [getattr(usual, name) for name in others]


def test_less_than_the_build_for_cpus_is_nothing_more():
    assert Taken(5, 9).beyond(Taken(6, 2)) == Taken(0, 7)
