"""The meter beside real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from faasmoe.errors import MeasurementError
from faasmoe.evaluation.meters.meter import Meter

_BUSY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time\\nwhile time.process_time() < 0.6: pass'])
block = bytearray(50_000_000)
for i in range(0, len(block), 4096): block[i] = 1
child.wait()
while time.process_time() < 0.5: pass
print('done', flush=True)
sys.stdin.read()
"""


def test_a_process_and_its_child_are_measured_to_the_end(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(bytes(40_960))
    with subprocess.Popen(
        [sys.executable, "-c", f"input()\n{_BUSY}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as busy:
        with Meter("me", busy.pid, {"weights": [(str(weights), 0, 40_960)]}) as meter:
            print(file=busy.stdin, flush=True)
            assert busy.stdout.readline() == "done\n"
        busy.stdin.close()
    usage = meter.usage
    assert set(usage.pss) == {"me"}
    assert 1.0 <= usage.cpu_seconds["me"] < 1.5  # its own half second, and all of its child's
    assert usage.peak["me"] > 50_000_000
    assert usage.resident["weights"][-1] == 40_960
    assert usage.meter.samples == len(usage.times) >= 3
    assert 0 < usage.meter.cpu_seconds < usage.seconds
    assert usage.meter.walks > 2
    assert usage.meter.cpu_seconds_around > 0


def test_what_has_ended_cannot_be_measured() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
        with pytest.raises(MeasurementError, match="does not run"), Meter("me", gone.pid):
            pass


def test_an_error_inside_comes_first() -> None:
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="inside"), Meter("me"):
        raise RuntimeError("inside")
    assert time.monotonic() - started < 60


def test_the_process_that_measures_imports_nothing_that_is_large() -> None:
    code = "import sys, faasmoe.evaluation.meters.sampler; print(*sys.modules)"
    names = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "msgspec", "psutil", "rich", "typer", "asyncio"} & set(names)
