"""The folder that stands for a GGUF file: config and tokenizer made of its metadata, and where the weights lie.

All that reads a checkpoint's config and tokenizer reads them from a folder. That of a GGUF file is in the user's cache,
named after the file and its state, and is made once; weights stay where they are. Without torch: config and tokenizer
are made in another process (`folder_process`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import faasmoe
from faasmoe.errors import CheckpointError, OptionError, brief
from faasmoe.model.checkpoint.child_process import run_apart
from faasmoe.model.checkpoint.gguf_link import LINK, write_link
from faasmoe.model.checkpoint.json_file import quoted
from faasmoe.util.folders import copy_cache
from faasmoe.util.folders.user_cache import CACHE, user_cache

CONFIG, GENERATION = "config.json", "generation_config.json"
# of a tokenizer, as transformers writes them
_FILES = (CONFIG, GENERATION, LINK, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
          "added_tokens.json", "chat_template.jinja")  # fmt: skip
_PROCESS = "faasmoe.model.checkpoint.gguf.folder_process"
SHARD = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def folder_of(file: Path) -> tuple[str, Path]:
    """The name under which a GGUF file is served, and its folder, which is made if it is not there.

    Raises `CheckpointError` or `UnsupportedModel` if the file is damaged or cannot be served, `OptionError` if the
    folder cannot be written.
    """
    name, shards = shards_of(file)
    try:
        sources = [copy_cache.state(shard.resolve()) for shard in shards]
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from error
    folder = user_cache() / "gguf" / f"{name}-{_identity(sources)}"
    if not (folder / CONFIG).is_file():
        try:
            _make(folder, shards, sources)
        except OSError as error:
            raise OptionError(
                f"the config and tokenizer in {file} cannot be written to {folder}: {brief(error)}; the environment "
                f"variable {CACHE} names another folder for them"
            ) from error
    return name, folder


def shards_of(file: Path) -> tuple[str, list[Path]]:
    """The name of a model and its files, of which `file` is the first, as llama.cpp's `gguf-split` calls them.

    Raises `CheckpointError` if it is another one, or one is missing.
    """
    parts = SHARD.fullmatch(file.name)
    if parts is None:
        return file.stem, [file]
    count = int(parts["count"])
    shards = [file.with_name(f"{parts['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    if int(parts["number"]) != 1:
        raise CheckpointError(f"{file} is one of {count} files of a model; give the first: {shards[0]}")
    for shard in shards:
        if not os.path.lexists(shard):
            raise CheckpointError(f"{shard} is missing, of the {count} files that {file.name} begins")
    return parts["stem"], shards


def _identity(sources: Sequence[copy_cache.State]) -> str:
    """Another one if a file, or the program that reads its metadata, is another."""
    return hashlib.sha256(json.dumps([faasmoe.__version__, sources]).encode()).hexdigest()[:16]


def _make(folder: Path, shards: Sequence[Path], sources: Sequence[copy_cache.State]) -> None:
    """Config comes last, so that a folder with a config is whole. Raises `OSError` and what `folder_process` does."""
    copy_cache.sweep(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder.parent) as name:
        draft = Path(name)
        what = f"whether the metadata of {quoted(str(shards[0]))} can be served"
        run_apart(_PROCESS, [str(shards[0]), str(draft)], what)
        write_link(draft, [shard.resolve() for shard in shards])
        copy_cache.create(folder, sources, _FILES)
        for made in sorted(draft.iterdir(), key=lambda made: made.name == CONFIG):
            made.replace(folder / made.name)
