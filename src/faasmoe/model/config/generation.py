"""The file generation_config.json, which a checkpoint need not have."""

from __future__ import annotations

import os
from pathlib import Path

import transformers  # its names are looked up where they are used: most of them bring torch

from faasmoe.errors import CheckpointError, brief
from faasmoe.model.checkpoint.json_file import quoted, read_json

_FILE = "generation_config.json"
_LARGEST = 4 << 20  # bytes


def end_tokens(folder: Path) -> list[int]:
    """The ids that end a text according to the file, none if there is no file.

    Raises `CheckpointError` if `folder` has such a file and it cannot be used.
    """
    file = folder / _FILE
    if not os.path.lexists(file):
        return []
    given = read_json(file, _LARGEST).get("eos_token_id")
    ends = given if isinstance(given, list) else [] if given is None else [given]
    for end in ends:
        if type(end) is not int or end < 0:
            raise CheckpointError(f"{file}: eos_token_id {quoted(end)}: must be a token id, or a list of some")
    try:
        transformers.GenerationConfig.from_pretrained(folder)
    except Exception as error:  # its validation raises whatever it runs into
        raise CheckpointError(f"{file} cannot be used: {brief(error)}") from error
    return ends
