"""JSON files that are not trusted. Without torch: some are read before it is imported."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import open_regular

LONGEST_NAME = 1000  # characters of a name that are repeated in messages
_LARGEST = 64 << 20  # bytes


def read_json(file: Path, most: int = _LARGEST, *, strict: bool = False) -> dict[str, Any]:
    """A JSON object from `file`, see `parse_json`.

    Raises `CheckpointError` if it is missing, is none, or has more than `most` bytes.
    """
    try:
        fd, state = open_regular(file)
        with os.fdopen(fd, "rb") as stream:
            if state.size > most:
                raise CheckpointError(f"{file} has {state.size} bytes; at most {most} are read")
            value = parse_json(stream.read(most).decode(), strict=strict)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} should hold a JSON object, not a {type(value).__name__}")
    return value


def quoted(name: object) -> str:
    """A name from a file, fit for a message on one line."""
    text = str(name) if isinstance(name, str) and name.isprintable() else ascii(name)
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]} ..."


def parse_json(text: str, *, strict: bool = False) -> Any:
    """The value of a JSON text. Raises `ValueError` also if it is nested too deeply.

    If it is `strict` also for what readers take differently: a key twice in an object, NaN, Infinity.
    """
    try:
        if strict:
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return found
