"""The process that libFuzzer runs in; `__main__` starts it, since libFuzzer ends a process its own way.

    python -m tests.fuzz.runner TARGET FOUND [OPTIONS OF LIBFUZZER] [FOLDERS]

An input that raises is written to the folder FOUND: libFuzzer itself does not always get to it.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris


def main() -> None:
    """Does not return."""
    with atheris.instrument_imports(include=["faasmoe"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target, found = TARGETS[sys.argv[1]], Path(sys.argv[2])

    def kept(data: bytes) -> None:
        try:
            target(data)
        except BaseException:
            name = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            (found / f"crash-{name}").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *sys.argv[3:]], kept)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
