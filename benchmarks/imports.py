"""What importing transformers without torch's compiler saves in a process that has loaded the demo model.

    python -m benchmarks.imports

Processes of both kinds alternate; medians. Memory is what is the process's own (anonymous).
"""

# ruff: noqa: PLC0415 - what is imported, and in which order, is what is measured
from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROUNDS = 5


def measure(lean: bool) -> dict[str, float]:
    """Seconds and 10^6 bytes of this process, which must be new."""
    from faasmoe.model.adapter.light_import import import_transformers

    started = time.perf_counter()
    if lean:
        import_transformers()
    from faasmoe.model.checkpoint.source import resolve
    from faasmoe.model.plan import make_plan
    from faasmoe.orchestrator.loaded_model import LoadedModel

    imported = {"imported, s": time.perf_counter() - started, "imported, MB": own_bytes() / 1e6}
    with TemporaryDirectory() as folder:
        LoadedModel(make_plan(resolve(None), None, "bfloat16"), Path(folder))
    return {**imported, "loaded, s": time.perf_counter() - started, "loaded, MB": own_bytes() / 1e6}


def own_bytes() -> int:
    """Of this process, and of no file."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1] == "lean")))
        return
    rounds: dict[str, list[dict[str, float]]] = {"whole": [], "lean": []}
    for _ in track(range(ROUNDS), "importing", console=Console(stderr=True), transient=True):
        for kind, found in rounds.items():
            command = [sys.executable, "-m", "benchmarks.imports", kind]
            found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    table = Table("figure", *rounds, box=None, pad_edge=False)
    for figure in rounds["whole"][0]:
        table.add_row(
            figure, *(f"{statistics.median(one[figure] for one in found):.1f}" for found in rounds.values())
        )
    Console().print(table)


if __name__ == "__main__":
    main()
