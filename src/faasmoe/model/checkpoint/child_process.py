"""Work on a checkpoint that needs torch or transformers, in a process of its own: the caller runs without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from faasmoe import errors
from faasmoe.errors import CheckpointError, UserError
from faasmoe.util import processes


def run_apart(module: str, arguments: Sequence[str], what: str) -> None:
    """Run a module's `main`, which calls `answer`, with `arguments` and the id of this process.

    Raises the `UserError` of that process; `CheckpointError` that `what` is not known if it ended without an answer.
    """
    with processes.start(module, [*arguments, str(os.getpid())], stdout=subprocess.PIPE) as child:
        try:
            said, _ = child.communicate()
        except BaseException:  # an interrupt, which it leaves to us
            child.kill()
            raise
    try:
        kind, message = json.loads(said.splitlines()[-1])
    except (IndexError, ValueError):
        raise CheckpointError(
            f"{what} is not known: the process that looked ended with status {child.returncode}"
        ) from None
    if kind is not None:
        raise getattr(errors, kind)(message)


def answer(work: Callable[[Sequence[str]], None]) -> None:
    """In the child: do `work` on the arguments, and tell the parent how it ended.

    The answer is one line of JSON: the name of the error and its message, or null and an empty text.
    """
    *arguments, parent = sys.argv[1:]
    processes.die_with_parent(int(parent))
    processes.leave_signals_to_parent()
    told: list[str | None] = [None, ""]
    try:
        work(arguments)
    except UserError as error:
        told = [type(error).__name__, str(error)]
    sys.stdout.write(f"{json.dumps(told)}\n")
