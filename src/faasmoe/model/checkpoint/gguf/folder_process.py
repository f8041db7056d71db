"""A process that writes the config and tokenizer in a GGUF file's metadata to a folder.

`model.checkpoint.gguf.folder`, which imports no torch, runs it with the file and the folder.
"""

from __future__ import annotations

import json
from pathlib import Path

from faasmoe.model.checkpoint.child_process import answer
from faasmoe.model.checkpoint.gguf.config import config_of, end_tokens_of
from faasmoe.model.checkpoint.gguf.folder import CONFIG, GENERATION
from faasmoe.model.checkpoint.gguf.header import read_gguf_header


def main() -> None:
    """Write the files that the command line says, and the result to standard output."""
    answer(lambda arguments: describe(*map(Path, arguments)))


def describe(file: Path, folder: Path) -> None:
    """Write config and tokenizer of a file to `folder`. Raises `UserError` if they cannot be served."""
    header = read_gguf_header(file)
    config = config_of(header)
    from faasmoe.model.checkpoint.gguf.tokenizer import save_tokenizer  # noqa: PLC0415 - transformers takes seconds

    save_tokenizer(header, folder)
    (folder / GENERATION).write_text(json.dumps({"eos_token_id": end_tokens_of(header)}))
    (folder / CONFIG).write_text(json.dumps(config))


if __name__ == "__main__":
    main()
