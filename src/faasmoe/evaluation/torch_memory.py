"""The memory of a process that has imported torch: a build with GPU libraries takes more than one for CPUs.

A process finds out by importing it:

    python -m faasmoe.evaluation.torch_memory
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from faasmoe.errors import MeasurementError
from faasmoe.model.adapter.torch_build import installed
from faasmoe.util.processes import start

_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Taken:
    """Bytes: `own` of each process that imports it, and `files` that all such processes have mapped together."""

    own: int
    files: int

    def beyond(self, other: Taken) -> Taken:
        """The difference to `other`."""
        return Taken(max(0, self.own - other.own), max(0, self.files - other.files))


OF_CPU_BUILD = Taken(140 << 20, 69 << 20)  # of 2.13.0+cpu


@cache
def beyond_cpu_build() -> Taken:
    """The memory that the installed build takes more than the CPU build, of which this package's figures are.

    Takes as long as importing torch, unless the installed build is for CPUs. Raises `MeasurementError`.
    """
    build = installed()
    if build and build.library is None:
        return Taken(0, 0)
    with start(__name__, stdout=subprocess.PIPE) as process:
        try:
            said, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise MeasurementError(f"torch could not be imported within {_SECONDS:.0f} s") from None
    if process.returncode:
        raise MeasurementError("torch cannot be imported")
    return Taken(**json.loads(said)).beyond(OF_CPU_BUILD)


def _now() -> Taken:
    """The memory of this process. Source: proc(5), smaps_rollup."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name.rstrip(":"): int(size) << 10 for name, size, *_ in map(str.split, lines)}
    return Taken(sizes["Anonymous"], sizes["Rss"] - sizes["Anonymous"])


def main() -> None:
    """Print what importing torch takes."""
    before = _now()
    import torch  # noqa: PLC0415 - this is what is measured

    del torch
    print(json.dumps(asdict(_now().beyond(before))))  # noqa: T201


if __name__ == "__main__":
    main()
