"""The file of a folder that says that its weights lie in GGUF files elsewhere. Without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from faasmoe.errors import CheckpointError
from faasmoe.model.checkpoint.json_file import read_json

LINK = "faasmoe-gguf.json"


def write_link(folder: Path, files: Sequence[Path]) -> None:
    """Say in `folder` that its weights lie in `files`. Raises `OSError`."""
    (folder / LINK).write_text(json.dumps({"files": [str(file) for file in files]}))


def linked_files(folder: Path) -> list[Path]:
    """The GGUF files that hold the weights of `folder`; none if it holds its own. Raises `CheckpointError`."""
    link = folder / LINK
    if not link.is_file():
        return []
    files = read_json(link).get("files")
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise CheckpointError(f"{link} names no files")
    return [Path(file) for file in files]
