"""What the command line and a config alone can refuse is refused by a process that never imports torch."""

from __future__ import annotations

import json
import subprocess
import sys

REFUSED = [
    ["serve", "--block-size", "61"],
    ["serve", "--max-model-len", "2049"],
    ["serve", "--keep-alive", "nan"],
    ["serve", "--memory-budget", "4"],
    ["serve", "--kv-cache-memory", "100TiB"],
    ["serve", "--quantize", "int8", "--dtype", "float32"],
    ["serve", "--prices", "/gone"],
    ["generate", "--prompt", ""],
    ["generate", "--prompt", "x", "--max-tokens", "2048"],
    ["generate", "--prompt", "x", "--block-size", "61"],
    ["plan", "--block-size", "61"],
    ["plan", "--layers", "3"],
    ["models", "make", "olmoe-1b-7b", "--layers", "99", "--out", "/gone"],
    ["models", "make", "olmoe-1b-7b", "--out", "/proc/self"],
    ["models", "record", "--text", "/dev/null", "--out", "x", "--answer-tokens", "2048"],
    ["evaluate", "blocks", "--size", "61", "--out", "/gone"],
    ["evaluate", "overhead", "--block-size", "61", "--out", "/gone"],
    ["tenants", "add", "x", "--budget", "25"],
]
TRY_ALL = """
import json, sys
from faasmoe.cli import main
outcomes = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["faasmoe", *arguments]
    try:
        main.main()
    except SystemExit as error:
        outcomes.append([error.code, "torch" in sys.modules])
print(json.dumps(outcomes))
"""


def test_torch_is_not_needed_to_refuse_what_cannot_work() -> None:
    command = [sys.executable, "-c", TRY_ALL, json.dumps(REFUSED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    outcomes = json.loads(done.stdout)
    assert dict(zip(map(" ".join, REFUSED), outcomes, strict=True)) == {
        " ".join(each): [2, False] for each in REFUSED
    }
    assert len(done.stderr.splitlines()) == len(REFUSED), done.stderr
