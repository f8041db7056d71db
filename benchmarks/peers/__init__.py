"""What users would pick instead, each in a process of its own: reads a `Task` per line, answers with a `Took`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Task:
    """Decode `tokens` tokens for each of some sequences that start with random prompts."""

    sequences: int
    prompt: int  # tokens
    tokens: int
    seed: int


@dataclass(frozen=True)
class Took:
    """Seconds until all prompts were in, and then for all tokens."""

    prefill: float
    decode: float


class Peer:
    """The process. Use it as a context manager."""

    def __init__(self, module: str, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", module, *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.tell = self._line()  # that it is ready, and which version it is

    def run(self, task: Task) -> Took:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(task)) + "\n")
        self._process.stdin.flush()
        return Took(**json.loads(self._line()))

    def _line(self) -> str:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            return line.strip()
        raise RuntimeError(f"{self._process.args!r} ended with status {self._process.wait()}")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def answer(version: str, run: Callable[[Task], Took]) -> None:
    """What a peer's process does, until its input ends."""
    print(version, flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(run(Task(**json.loads(line))))), flush=True)
