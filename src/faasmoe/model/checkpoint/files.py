"""The files of a checkpoint as they were when they were read, and whether they still are."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from faasmoe.errors import CheckpointError
from faasmoe.experts.file_state import FileState, changed
from faasmoe.model.checkpoint.gguf_link import linked_files

log = logging.getLogger(__name__)

# what models and tokenizers are read from, beside the shards
BESIDE_WEIGHTS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")
_READ = ("*.safetensors", *BESIDE_WEIGHTS)
_RECORD = "checkpoint.json"


def read_by_loading(folder: Path) -> list[Path]:
    """Paths in `folder` that loading may read, by their names. They need not be files."""
    return sorted({file for pattern in _READ for file in folder.glob(pattern)})


class CheckpointFiles:
    """Files and their states. The first file that is found to have changed is logged, with its folder."""

    def __init__(self, states: Mapping[Path, FileState]) -> None:
        self.states = states
        self._told = False

    @classmethod
    def of(cls, folder: Path) -> CheckpointFiles:
        """All files of a checkpoint that loading it may read, as they are now.

        Raises `CheckpointError` if such a path is no regular file: reading a named pipe could wait without end.
        """
        states = {}
        for file in [*read_by_loading(folder), *linked_files(folder)]:
            try:
                if not stat.S_ISDIR(file.stat().st_mode):  # nobody reads those
                    states[file] = FileState.read(file)
            except FileNotFoundError:
                continue  # a link to nowhere; whoever needs it says so
            except OSError as error:
                raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
        return cls(states)

    def pin(self, folder: Path) -> None:
        """Have every later call with the same `folder`, by whichever process, see the same states.

        A server's first process that loads the model notes them there. Raises `CheckpointChanged` if a later one finds
        others: requests and functions of the server belong to the first model. Raises `OSError`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        record = folder / _RECORD
        if record.exists():
            pinned = {Path(file): FileState(*state) for file, *state in json.loads(record.read_text())}
            CheckpointFiles(pinned).check()
            return
        draft = record.with_suffix(".new")
        draft.write_text(json.dumps([[str(file), *astuple(state)] for file, state in self.states.items()]))
        draft.rename(record)

    def check(self) -> None:
        """Raises `CheckpointChanged` if one of the files was replaced, written to, cut short or removed."""
        for file, before in self.states.items():
            self._check(file, before, elsewhere=True)

    def check_mapped(self) -> None:
        """As `check`, but only for files that were changed in place: memory that is mapped from them has changed too.

        A process that has mapped a file keeps its content if the file is replaced or removed. Takes 2 µs a file.
        """
        for file, before in self.states.items():
            self._check(file, before, elsewhere=False)

    def _check(self, file: Path, before: FileState, elsewhere: bool) -> None:
        what = ""
        try:
            now = FileState.read(file)
        except FileNotFoundError:
            what = "was removed" if elsewhere else ""
        except OSError as error:
            what = f"cannot be read any more ({error.strerror})" if elsewhere else ""
        else:
            if elsewhere or before.same_file(now):
                what = before.difference(now)
        if what:
            if not self._told:
                self._told = True
                log.error(
                    "%s %s while the model is in use; restart the server to load what is there now", file, what
                )
            raise changed(file, what)
