"""The artifacts of a node: those that were deployed, with file tables of this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from faasmoe.errors import OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol.content import FunctionContent
from faasmoe.platforms.cluster.weights import file_table
from faasmoe.platforms.cluster.weights.file_table import FileRow


class NodeArtifacts:
    """In `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def named(self, spec: FunctionSpec, content: FunctionContent) -> FunctionSpec:
        """The function with the path of its artifact here, which need not be written yet."""
        mark = hashlib.sha256(f"{spec.name} {content.digest}".encode()).hexdigest()[:32]
        return replace(spec, artifact=self._folder / mark, files=())

    def write(self, spec: FunctionSpec, content: FunctionContent, rows: Sequence[FileRow]) -> FunctionSpec:
        """Write the artifact. Returns the function with the ranges that it maps of the files of `rows`.

        Raises `OptionError`.
        """
        path = spec.artifact
        text = file_table.joined(content.artifact, rows) if content.files else content.artifact
        draft = path.with_suffix(".new")
        try:
            self._folder.mkdir(exist_ok=True)
            draft.write_bytes(text)
            draft.replace(path)  # in one instant: an instance may be reading it
        except OSError as error:
            raise OptionError(f"{path} cannot be written: {error.strerror}") from error
        ranges = (FileRange(Path(rows[each.file].path), each.offset, each.length) for each in content.ranges)
        return replace(spec, files=tuple(ranges))
