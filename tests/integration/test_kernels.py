"""Kernels that are measured by a real process, and reach every process that computes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from faasmoe.cli.kernels import cache
from faasmoe.cli.kernels.idle_calibration import measure_when_idle
from faasmoe.evaluation.meters.processes import Family
from faasmoe.experts.formats import conversions
from faasmoe.experts.kernels.calibration import ONEDNN, Calibration, Measurement
from faasmoe.experts.kernels.choice import VARIABLE
from faasmoe.experts.kernels.library import instruction_sets
from faasmoe.util.folders.user_cache import CACHE
from tests.chaos.questions import MODEL
from tests.integration.servers import serve
from tests.integration.test_mapped_libraries import files

GENERATE = """
from faasmoe.cli.main import app
app(["generate", "--prompt", "It was", "--max-tokens", "2", "--dtype", "bfloat16", "--json"], standalone_mode=False)
from faasmoe.experts.kernels.library import LIBRARY
print(LIBRARY.instruction_set)
"""


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def baseline() -> None:
    """It was measured to be the fastest."""
    times = {name: 1.0 if name == "baseline" else 2.0 for name in instruction_sets()}
    cache.remember(Calibration([Measurement("bfloat16", 1, "memory", times)], 1.0))


def test_an_idle_server_measures_and_the_command_shows_it() -> None:
    asyncio.run(asyncio.wait_for(measure_when_idle(lambda: False, 0.01), 100))
    command = [sys.executable, "-m", "faasmoe", "kernels", "--json"]
    facts = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
    assert facts["reason"] == "the fastest, as was measured here"
    assert facts["used"].keys() == {"bfloat16", *conversions()}
    assert {each["instruction_set"] for each in facts["used"].values()} <= set(instruction_sets())
    for each in facts["calibration"]["measurements"]:
        onednn = {ONEDNN} if each["format"] == "bfloat16" and each["rows"] >= 64 else set()
        assert each["milliseconds"].keys() == {*instruction_sets(), *onednn}


@pytest.mark.usefixtures("baseline")
def test_all_processes_of_a_server_compute_with_what_was_measured() -> None:
    with serve() as server:
        asked = {"model": MODEL, "prompt": "It was", "max_tokens": 4}
        httpx.post(f"{server.url}/v1/completions", json=asked, timeout=60).raise_for_status()
        family = Family(server.process.pid, "gateway").look()
        for role in ("orchestrator", "zygote", "instances"):
            assert family[role]
            for process in family[role]:
                kernels = {Path(name).stem for name in files(process.pid) if "kernels-" in name}
                assert [name.rpartition("-")[2] for name in kernels] == ["baseline"]


@pytest.mark.usefixtures("baseline")
def test_a_command_without_a_server_computes_with_it_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GENERATE], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.splitlines()[-1] == "baseline"
