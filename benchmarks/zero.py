"""The way back from zero: how long a streamed request waits, by what has ended before it comes.

    python -m benchmarks.zero [MODEL] --json FILE

A real server with short keep-alives is left alone until the processes of a row have ended, which their table tells,
and is asked for a few tokens then. Rows take turns, each has what the rows above it have; medians. Before the last
row the kernel is asked to drop what it keeps of the interpreter, of all packages and of the checkpoint, which takes no
root; what other processes map stays (`left_mib`).

`first_byte` and `first_token` are seconds from the request on, as its client sees them. The others say when processes
were started, by the kernel's account: `daemon`; `functions`, when the zygote has imported what functions need and forks
its first child; `template`; `orchestrator`, when the template has loaded the model and forks it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track
from tests.integration.servers import Server, serve
from tests.waiting import alive, wait_until

from benchmarks.figures import machine
from faasmoe.evaluation.meters.processes import Family
from faasmoe.evaluation.meters.residency import resident_bytes
from faasmoe.model.checkpoint.source import resolve

# seconds; those of the pool are more than the template needs to load the model, as they are by default
INSTANCES, POOL, ORCHESTRATOR = 1.0, 6.0, 16.0  # the pool is gone 11 s after a request
PROMPT, ANSWER = 8, 4  # tokens
PATIENCE = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
COLUMNS = ("daemon", "functions", "template", "orchestrator", "first_byte", "first_token")

Row = dict[str, float]


@dataclass(frozen=True)
class Case:
    """What has ended before a request comes."""

    name: str
    there: frozenset[str]  # roles, without the gateway's own
    instances: bool = False  # there may be some
    cached: bool = True  # the kernel keeps files


# the zygote's spares are instances
_ALL = frozenset({"daemon", "zygote", "instances", "orchestrator", "template"})
CASES = (
    Case("nothing", _ALL, instances=True),
    Case("instances", _ALL),
    Case("daemon, zygote", frozenset({"orchestrator", "template"})),
    Case("orchestrator", frozenset({"template"})),
    Case("template", frozenset()),
    Case("page cache", frozenset(), cached=False),
)


class Asked:
    """A server that is asked again and again, and looked at in between."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._url = server.url
        self._family = Family(server.process.pid, "gateway")
        self._folder = folder
        self._random = random.Random(0)
        self._model = httpx.get(f"{server.url}/v1/models", timeout=PATIENCE).json()["data"][0]["id"]

    def row(self, case: Case) -> Row:
        """Ask when all is gone that `case` names."""
        if not wait_until(lambda: self._gone(case), PATIENCE):
            raise RuntimeError(f"not all of {case.name} ended within {PATIENCE:g} s, or more did: try --idle 3")
        left = {} if case.cached else {"left_mib": drop(self._folder) / 2**20}
        if not self._gone(case):
            raise RuntimeError(f"{case.name}: more has ended before it was asked: try --idle 3")
        return {**self.ask(), **left}

    def _gone(self, case: Case) -> bool:
        roles = self._family.look().items()
        there = {role for role, its in roles if any(alive(one.pid) for one in its)} & _ALL
        return there == case.there and (case.instances or not self._instances())

    def _instances(self) -> float:
        page = httpx.get(f"{self._url}/metrics", timeout=PATIENCE).text
        lines = [line for line in page.splitlines() if line.startswith("faasmoe_instances{")]
        return sum(float(line.split()[-1]) for line in lines)

    def ask(self) -> Row:
        """When what happened."""
        prompt = [self._random.randrange(3, 250) for _ in range(PROMPT)]
        body = {"model": self._model, "prompt": prompt, "max_tokens": ANSWER, "stream": True, "ignore_eos": True}
        since, began = time.clock_gettime(time.CLOCK_BOOTTIME), time.perf_counter()
        row: Row = {}
        with httpx.stream("POST", f"{self._url}/v1/completions", json=body, timeout=PATIENCE) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                row.setdefault("first_byte", time.perf_counter() - began)
                if line.startswith("data: {"):
                    if "error" in (event := json.loads(line.removeprefix("data: "))):
                        raise RuntimeError(f"the request failed: {event['error']}")
                    row.setdefault("first_token", time.perf_counter() - began)
        return {**row, **self._started(since)}

    def _started(self, since: float) -> Row:
        """When the first of each role was started, in seconds after `since`, which is of the boot's clock."""
        names = {
            "daemon": "daemon",
            "instances": "functions",
            "template": "template",
            "orchestrator": "orchestrator",
        }
        roles = self._family.look()
        if "zygote" in roles and roles["zygote"][0].started / TICKS < since:
            names.pop("instances")  # what forks them was there
        firsts = {name: min(one.started for one in roles[role]) for role, name in names.items() if role in roles}
        return {
            name: max(0.0, at / TICKS - since) for name, at in firsts.items() if at / TICKS >= since - 1 / TICKS
        }


def drop(model: Path) -> int:
    """Have the kernel drop all files that processes read. Returns the bytes that it keeps nevertheless."""
    files = list(_files(model))
    for file in files:
        with suppress(OSError):  # a link to nowhere
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
    return resident_bytes((str(file), 0, file.stat().st_size) for file in files if os.access(file, os.W_OK))


def _files(model: Path) -> Iterator[Path]:
    paths = sysconfig.get_paths()
    ours = Path(__file__).resolve().parent.parent / "src"
    roots = {Path(os.path.realpath(paths[kind])) for kind in ("stdlib", "purelib", "platlib")} | {ours, model}
    for root in roots:
        yield from (file for file in root.rglob("*") if file.is_file())
    yield Path(os.path.realpath(sys.executable))


def measure(asked: Asked, cases: Sequence[Case], rounds: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {case.name: [] for case in cases}
    asked.ask()  # nothing is compiled, and no folder made, in what is measured
    for _ in track(range(rounds), "the way back", console=Console(stderr=True), transient=True):
        for case in cases:
            found[case.name].append(asked.row(case))
    return found


def medians(rows: Sequence[Row]) -> Row:
    """Of each figure that the rows have."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: statistics.median(row[name] for row in rows if name in row) for name in names}


def table(found: dict[str, list[Row]]) -> Iterator[str]:
    """Lines of Markdown, as docs/operating.md has them."""
    yield "| gone | " + " | ".join(column.replace("_", " ") for column in COLUMNS) + " | worst |"
    yield "| --- |" + " --: |" * (len(COLUMNS) + 1)
    for name, rows in found.items():
        row = medians(rows) | {"worst": max(row["first_token"] for row in rows)}
        yield f"| {name} | " + " | ".join(f"{row[c]:.2f}" if c in row else "" for c in (*COLUMNS, "worst")) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a folder with a checkpoint; default: the demo model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", action="append", choices=[case.name for case in CASES], help="a row; again: more"
    )
    parser.add_argument("--idle", type=float, default=1, help="times as long keep-alives, for a slow machine")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    args = parser.parse_args()
    cases = [case for case in CASES if case.name in (args.only or [each.name for each in CASES])]
    folder = resolve(args.model).folder
    instances, orchestrator = INSTANCES * args.idle, ORCHESTRATOR * args.idle
    options = [str(folder), "--keep-alive", str(instances), "--orchestrator-keep-alive", str(orchestrator)]
    options += ["--platform-option", f"zygote_keep_alive={POOL * args.idle}", "--log-level", "warning"]
    with serve(*options) as server:
        found = measure(Asked(server, folder), cases, args.rounds)
    print(*table(found), sep="\n")
    if args.json:
        figures = {name: {"median": medians(rows), "rounds": rows} for name, rows in found.items()}
        Path(args.json).write_text(json.dumps({"machine": machine(), "model": folder.name, **figures}, indent=1))


if __name__ == "__main__":
    main()
