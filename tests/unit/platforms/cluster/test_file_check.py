"""Whether a node has the files of a function."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.platforms.base import FileRange, FunctionSpec
from faasmoe.platforms.cluster.file_check import check_files, digest
from faasmoe.platforms.cluster.protocol.messages import CatalogueEntry


def entry(artifact: Path, *files: FileRange) -> CatalogueEntry:
    return CatalogueEntry("f", 1, FunctionSpec("f", "m:a", artifact, files=files), digest(artifact))


def test_files_that_are_there_pass(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("artifact")
    (tmp_path / "w").write_bytes(bytes(100))
    files = FileRange(tmp_path / "w", 0, 10), FileRange(tmp_path / "w", 90, 10)
    check_files([entry(tmp_path / "a", *files), CatalogueEntry("gone", 2, None)], "n")


def test_another_artifact_is_refused_by_node_and_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("artifact")
    deployed = entry(tmp_path / "a")
    (tmp_path / "a").write_text("Artifact")
    with pytest.raises(OptionError, match=f"{tmp_path / 'a'} is another file than .* on node n"):
        check_files([deployed], "n")
    (tmp_path / "a").unlink()
    with pytest.raises(OptionError, match="is missing on node n"):
        check_files([deployed], "n")


def test_weights_that_are_missing_or_short_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("artifact")
    (tmp_path / "w").write_bytes(bytes(99))
    with pytest.raises(OptionError, match="w has 99 bytes on node n, and 100 are needed"):
        check_files([entry(tmp_path / "a", FileRange(tmp_path / "w", 90, 10))], "n")
    with pytest.raises(OptionError, match="gone cannot be read on node n"):
        check_files([entry(tmp_path / "a", FileRange(tmp_path / "gone", 0, 1))], "n")


def test_what_is_no_regular_file_has_no_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert digest(tmp_path / "pipe") == digest(tmp_path / "gone") == ""
    check_files([entry(tmp_path / "pipe")], "n")


def test_a_large_artifact_is_known_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(65 << 20)
    assert digest(tmp_path / "large") == f"{65 << 20} bytes"
