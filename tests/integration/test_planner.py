"""What the planner says of the demo model against what real processes take."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from faasmoe.evaluation.workloads.ask import Ask
from faasmoe.evaluation.workloads.paper import task_sets
from faasmoe.model.adapter import torch_build
from faasmoe.model.architecture import read_config
from faasmoe.model.checkpoint.source import resolve
from faasmoe.model.text.tokenizer import Tokenizer
from faasmoe.planner.activations import RecordedActivations
from faasmoe.planner.conditions import Conditions, Setting
from faasmoe.planner.machine import ProcessFootprint
from faasmoe.planner.plan import requests_of
from faasmoe.planner.prediction import predict
from faasmoe.planner.shape import shape_of
from tests import processes
from tests.integration.servers import serve
from tests.memory import held_bytes

TOKENS = 80
OFF, OFF_ELSEWHERE = 0.15, 0.25  # of the build of torch that figures are of, and of others


def faasmoe(*arguments: str) -> dict:
    command = [sys.executable, "-m", "faasmoe.cli.main", *arguments, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout)


def test_predictions_hold_for_one_request(tmp_path: Path) -> None:
    prompts = [own[0] for tasks in task_sets().values() for own in tasks.values()]
    (tmp_path / "prompts").write_text("\n\n".join(prompts[:8]))
    facts = faasmoe("models", "record", "--text", str(tmp_path / "prompts"), "--out", str(tmp_path / "recorded"))
    activations = RecordedActivations.load(tmp_path / "recorded")
    assert facts["layers"] == 6
    assert facts["tokens"] == len(activations.layers[0]) > 8 * 31

    took = faasmoe("generate", "--prompt", prompts[9], "--max-tokens", str(TOKENS), "--seed", "1")
    assert took["cold_starts"] == took["functions_touched"] <= took["functions"] == 36
    assert took["tokens_per_second"] > 0
    assert took["text"]
    folder = resolve(None).folder
    prompt = len(Tokenizer.load(folder, read_config(folder)).encode(prompts[9]))
    given = Conditions(shape_of(None), 16 << 30, activations=activations, count_from=0.0)
    told = predict(requests_of([Ask(1.0, "", prompt, took["tokens"])]), Setting("shared", 10, 60.0), given)
    assert told.invocations_per_token == pytest.approx(took["invocations"] / took["tokens"], rel=0.05)
    assert took["peak_memory_bytes"].keys() >= told.memory.keys() - {"gateway", "platform"}


def test_memory_is_predicted_for_the_installed_build_of_torch() -> None:
    body = {"model": "faasmoe-demo", "prompt": "The king", "max_tokens": TOKENS, "temperature": 1, "seed": 1}
    shape = shape_of(None)
    given = Conditions(shape, 16 << 30, footprint=ProcessFootprint.here(), count_from=0.0)
    told = predict(requests_of([Ask(1.0, "", 2, TOKENS)]), Setting("shared", 12, 60.0), given)
    with serve("--block-size", "12") as server:  # one that keeps nothing of other requests
        httpx.post(f"{server.url}/v1/completions", json=body, timeout=100).raise_for_status()
        assert len(server.instances()) == told.functions
        roots = [processes.template(server.process.pid), processes.daemon(server.process.pid)]
        pids = [each.pid for root in roots if root for each in (root, *root.children(recursive=True))]
        held = held_bytes(pids)
    build = torch_build.installed()
    off = OFF if build is not None and build.library is None else OFF_ELSEWHERE
    assert told.memory_peak - told.memory["gateway"] == pytest.approx(held, rel=off)
