"""The file generation_config.json, which a checkpoint need not have."""

from __future__ import annotations

import os
from pathlib import Path

import transformers  # its names are looked up where they are used: most of them bring torch

from faasmoe.errors import CheckpointError, brief
from faasmoe.model.checkpoint.json_file import quoted, read_json

_FILE = "generation_config.json"
_LARGEST = 4 << 20  # bytes
_SAMPLING: dict[str, tuple[float, float]] = {  # least and greatest value
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (-1, 2**31),
    "min_p": (0, 1),
    "repetition_penalty": (0.1, 10),
}


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


def sampling_defaults(folder: Path) -> dict[str, float]:
    """The values of sampling that the file gives to requests that state none, by the names of vLLM's parameters.

    As in vLLM `do_sample` counts for nothing. Raises `CheckpointError` for a value that no request could have.
    """
    file = folder / _FILE
    if not os.path.lexists(file):
        return {}
    given, found = read_json(file, _LARGEST), {}
    for name, (low, high) in _SAMPLING.items():
        value = given.get(name)
        if value is None:
            continue
        if type(value) not in (int, float) or not low <= value <= high:
            raise CheckpointError(f"{file}: {name} {quoted(value)}: must be a number from {low:g} to {high:g}")
        found[name] = value
    return found
