from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from faasmoe.cli.kernels import cache, calibration
from faasmoe.experts import calibrator
from faasmoe.experts.kernels.calibration import ONEDNN, Calibration, Measurement
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import running
from faasmoe.model.dense.linear import onednn
from faasmoe.util import processes
from faasmoe.util.folders.user_cache import CACHE

OURS = Measurement("bfloat16", 64, "cache", {"baseline": 4.0})
BOTH = Measurement("bfloat16", 64, "cache", {"baseline": 4.0, ONEDNN: 3.0})


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    monkeypatch.setattr(calibrator, "calibrate", lambda names: [OURS] if names == running(Cpu.here()) else [])
    monkeypatch.setattr(onednn, "timed", lambda its: [BOTH] if its == [OURS] else [])


def test_our_kernels_and_onednn_are_measured_and_kept() -> None:
    found = calibration.measure()
    assert found == Calibration([BOTH], found.seconds)
    assert cache.remembered() == found
    assert 0 < found.seconds < 60


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process asks of the system."""
    asked: list[str] = []
    monkeypatch.setattr(sys, "argv", ["calibration", "123"])
    monkeypatch.setattr(processes, "die_with_parent", lambda parent: asked.append(f"die with {parent}"))
    monkeypatch.setattr(processes, "leave_signals_to_parent", lambda: asked.append("no signals"))
    monkeypatch.setattr(processes, "set_name", asked.append)
    monkeypatch.setattr(os, "nice", lambda by: asked.append(f"nice {by}"))
    monkeypatch.setattr(Path, "write_text", lambda file, text: asked.append(f"{file} {text}"))
    return asked


def test_the_process_yields_to_the_server_that_has_started_it(asked: list[str]) -> None:
    calibration.main()
    assert asked == ["die with 123", "no signals", "faasmoe-kernels", "nice 19", "/proc/self/oom_score_adj 1000"]
    assert cache.remembered() is not None


def test_a_cache_that_cannot_be_written_ends_it_with_a_line(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    with pytest.raises(SystemExit, match=r"kernels are not measured: .*kernels.json: .*Not a directory"):
        calibration.main()
