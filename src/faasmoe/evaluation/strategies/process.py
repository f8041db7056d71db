"""The process in which a strategy runs. It reads and writes messages of `protocol`, and ends when its input ends.

python -m faasmoe.evaluation.strategies.process
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import msgspec

from faasmoe.errors import FaasmoeError
from faasmoe.evaluation.memory_limit import join
from faasmoe.evaluation.strategies.protocol import Orders, Play, Played, StrategyReady
from faasmoe.evaluation.strategies.registry import serve
from faasmoe.util.gc_freeze import importing
from faasmoe.util.processes import leave_signals_to_parent


def main() -> None:
    """Obey."""
    leave_signals_to_parent()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(answer: StrategyReady | Played) -> None:
        out.write(msgspec.json.encode(answer) + b"\n")
        out.flush()

    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    if orders.group:
        join(orders.group)
    try:
        with ExitStack() as stack:
            with importing():
                play = stack.enter_context(serve(orders))
            say(StrategyReady())
            while line := sys.stdin.buffer.readline():
                say(play(msgspec.json.decode(line, type=Play).asks))
    except FaasmoeError as error:
        say(StrategyReady(str(error)))
        sys.exit(1)


if __name__ == "__main__":
    main()
