"""Artifacts of a node, with file tables of its machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.protocol.content import ContentFile, ContentRange, FunctionContent
from faasmoe.platforms.cluster.weights import file_table
from faasmoe.platforms.cluster.weights.artifacts import NodeArtifacts
from faasmoe.platforms.cluster.weights.file_table import FileRow

SPEC = FunctionSpec("f/1", "m:a", Path("/server/f.json"), files=(FileRange(Path("/server/w"), 3, 4),), memory=5)
CONTENT = FunctionContent(b"content\n", (ContentFile("/server/w", 9),), (ContentRange(0, 3, 4, bytes(32)),))
ROW = FileRow("/here/w", 1, 2, 9, 3)


def test_an_artifact_says_where_files_are_here(tmp_path: Path) -> None:
    artifacts = NodeArtifacts(tmp_path / "artifacts")
    named = artifacts.named(SPEC, CONTENT)
    assert (named.files, named.artifact.parent) == ((), tmp_path / "artifacts")
    written = artifacts.write(named, CONTENT, [ROW])
    assert file_table.split(written.artifact.read_bytes()) == (b"content\n", [ROW])
    assert written.files == (FileRange(Path("/here/w"), 3, 4),)
    assert (written.artifact, written.memory) == (named.artifact, 5)


def test_each_content_has_an_artifact_of_its_own(tmp_path: Path) -> None:
    artifacts = NodeArtifacts(tmp_path)
    contents = [CONTENT, FunctionContent(b"other\n", CONTENT.files, CONTENT.ranges), FunctionContent(b"A:")]
    assert len({artifacts.named(SPEC, content).artifact for content in contents}) == 3
    bare = artifacts.write(artifacts.named(SPEC, contents[2]), contents[2], [])
    assert (bare.artifact.read_bytes(), bare.files) == (b"A:", ())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    artifacts = NodeArtifacts(tmp_path / "gone" / "artifacts")
    with pytest.raises(OptionError, match=r"gone/artifacts/.* cannot be written: No such file"):
        artifacts.write(artifacts.named(SPEC, CONTENT), CONTENT, [ROW])
