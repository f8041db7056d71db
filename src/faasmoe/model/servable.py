"""A process that checks whether the config and tokenizer in a folder can be served.

`model.checkpoint.hub`, which imports no torch, runs it with the folder before weights are fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from faasmoe.model.adapter.light_import import import_transformers
from faasmoe.model.checkpoint.child_process import answer


def main() -> None:
    """Check the folder on the command line, and write the result to standard output."""
    answer(_check)


def _check(arguments: Sequence[str]) -> None:
    (folder,) = arguments
    import_transformers()
    import torch  # noqa: PLC0415

    from faasmoe.model.dense.rehearsal import rehearse  # noqa: PLC0415
    from faasmoe.model.plan import describe  # noqa: PLC0415

    architecture, _ = describe(Path(folder))
    rehearse(architecture, torch.float32)


if __name__ == "__main__":
    main()
