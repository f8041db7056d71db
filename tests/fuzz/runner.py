"""The process that libFuzzer runs in; `__main__` starts it, since libFuzzer ends a process its own way.

    python -m tests.fuzz.runner TARGET FOUND [OPTIONS OF LIBFUZZER] [FOLDERS]

An input that raises is written to the folder FOUND: libFuzzer itself does not always get to it.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

from tests.fuzz.mutation import mutated


def _json(data: bytes, longest: int, seed: int) -> bytes:
    """Every fourth time the fuzzer's own changes, which break JSON."""
    changed = mutated(data, seed, longest) if seed % 4 else None
    return changed if changed is not None else atheris.Mutate(data, longest)


def _header(data: bytes, longest: int, seed: int) -> bytes:
    if not data or seed % 16 == 0:
        return atheris.Mutate(data, longest)
    kind = data[0] if seed % 3 else seed // 3 % 256
    return bytes([kind]) + _json(data[1:], longest - 1, seed)


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

    changing = {"bodies": _json, "headers": _header}.get(sys.argv[1])
    options = {} if changing is None else {"custom_mutator": changing}
    atheris.Setup([sys.argv[0], *sys.argv[3:]], kept, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
