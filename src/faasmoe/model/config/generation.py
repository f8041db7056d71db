"""A check of generation_config.json, which a checkpoint need not have."""

from __future__ import annotations

import os
from pathlib import Path

from transformers import GenerationConfig

from faasmoe.errors import CheckpointError, brief
from faasmoe.model.checkpoint.json_file import quoted, read_json

_FILE = "generation_config.json"
_LARGEST = 4 << 20  # bytes


def check_generation(folder: Path) -> None:
    """Raises `CheckpointError` if `folder` has such a file and it cannot be used."""
    file = folder / _FILE
    if not os.path.lexists(file):
        return
    ends = read_json(file, _LARGEST).get("eos_token_id")
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if type(end) is not int or end < 0:
            raise CheckpointError(f"{file}: eos_token_id {quoted(end)}: must be a token id, or a list of some")
    try:
        GenerationConfig.from_pretrained(folder)
    except Exception as error:  # its validation raises whatever it runs into
        raise CheckpointError(f"{file} cannot be used: {brief(error)}") from error
