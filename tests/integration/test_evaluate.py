"""Strategies run and are measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.results import Results
from faasmoe.evaluation.strategies.host import Host
from faasmoe.evaluation.strategies.protocol import Orders
from faasmoe.evaluation.strategies.registry import STRATEGIES


def test_all_strategies_answer_the_same_requests(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [
        sys.executable,
        "-m",
        "faasmoe.cli.main",
        "evaluate",
        "strategies",
        "--tenants",
        "2",
        "--trials",
        "1",
    ]
    command += ["--max-tokens", "3", "--block-size", "60", "--out", str(out), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=280)
    assert {tuple(row["kind"][1:3]) for row in json.loads(done.stdout)} == {
        ("paper", strategy) for strategy in STRATEGIES
    }
    runs = {run.strategy: run for run in Results.load(out).runs}
    asked = {
        name: sorted((r.tenant, r.prompt_tokens, r.tokens) for r in run.requests) for name, run in runs.items()
    }
    assert all(its == asked["baseline"] for its in asked.values())
    assert len(asked["baseline"]) == 10
    assert set(runs["baseline"].usage.pss) == {"model"}
    assert set(runs["faasmoe-shared"].usage.pss) == {"orchestrator", "daemon", "zygote", "instances"}
    assert set(runs["local-distribution"].usage.pss) == {"orchestrator", "daemon", "zygote", "instances"}
    assert set(runs["faasmoe-private"].usage.pss) == {
        "gateway", "template", "orchestrator", "daemon", "zygote", "instances"
    }  # fmt: skip
    assert runs["shared-full"].invocations == 0
    for private in ("local-distribution", "faasmoe-private"):  # no step is shared
        assert runs[private].invocations == 30 * 6
    assert 15 * 6 <= runs["faasmoe-shared"].invocations <= 30 * 6  # as many steps, of one tenant or of both
    assert all(run.usage.resident["weights"][-1] > 0 for run in runs.values())
    assert all(r.asked <= r.first <= r.end for run in runs.values() for r in run.requests)


def test_a_strategy_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasurementError, match=r"does not start: .*config\.json"),
        Host(Orders(strategy="shared-full", model=str(tmp_path), tenants=("a",))),
    ):
        pass
