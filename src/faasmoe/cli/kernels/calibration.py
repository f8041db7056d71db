"""Measures kernels and keeps what was found: for `faasmoe kernels --measure`, or as a process that a server starts."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from faasmoe.cli.kernels import cache
from faasmoe.errors import UserError
from faasmoe.experts.kernels.calibration import Calibration
from faasmoe.experts.kernels.cpu import Cpu
from faasmoe.experts.kernels.instruction_set import running
from faasmoe.util import processes

_LAST_TO_RUN, _FIRST_TO_DIE = 19, 1000  # nice(2), proc(5): a server beside it matters more


def measure() -> Calibration:
    """Measure, and keep it for the next start. Raises `OptionError` if it cannot be kept."""
    start = time.perf_counter()
    from faasmoe.experts.calibrator import calibrate

    measurements = calibrate(running(Cpu.here()))
    from faasmoe.model.dense.linear import onednn

    measurements = onednn.timed(measurements)
    found = Calibration(measurements, time.perf_counter() - start)
    cache.remember(found)
    return found


def main() -> None:
    """Run the process. It ends with its parent, whose process id is its argument."""
    processes.die_with_parent(int(sys.argv[1]))
    processes.leave_signals_to_parent()
    processes.set_name("faasmoe-kernels")
    os.nice(_LAST_TO_RUN)
    with suppress(OSError):  # it cannot be said on a read-only /proc; then it is as any other process
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_DIE))
    try:
        measure()
    except UserError as error:
        sys.exit(f"kernels are not measured: {error}")


if __name__ == "__main__":
    main()
