"""A process that checks whether the config and tokenizer in a folder can be served.

`model.checkpoint.hub`, which imports no torch, runs it before weights are fetched. Called with the folder and its
parent's process id, it writes one line of JSON: the name of the error and its message, or null and an empty text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from faasmoe.errors import UserError
from faasmoe.model.adapter.light_import import import_transformers
from faasmoe.util.processes import die_with_parent, leave_signals_to_parent


def main() -> None:
    """Check the folder on the command line, and write the result."""
    folder, parent = Path(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    leave_signals_to_parent()
    import_transformers()
    import torch  # noqa: PLC0415

    from faasmoe.model.dense.rehearsal import rehearse  # noqa: PLC0415
    from faasmoe.model.plan import describe  # noqa: PLC0415

    answer: list[str | None] = [None, ""]
    try:
        architecture, _ = describe(folder)
        rehearse(architecture, torch.float32)
    except UserError as error:
        answer = [type(error).__name__, str(error)]
    sys.stdout.write(f"{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
