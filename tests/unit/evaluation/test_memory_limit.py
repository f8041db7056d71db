from __future__ import annotations

import os
from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.evaluation.memory_limit import MemoryLimit, forget_files, join

LIMIT = 100 << 20


def version_1(root: Path) -> None:
    (root / "memory").mkdir()
    (root / "memory/memory.limit_in_bytes").write_text("9223372036854771712")


def version_2(root: Path) -> None:
    (root / "cgroup.subtree_control").write_text("cpu memory pids\n")


@pytest.mark.parametrize(
    ("version", "parent", "file", "most"),
    [
        (version_1, "memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
        (version_2, ".", "memory.max", "memory.peak"),
    ],
)
def test_a_group_has_the_limit_and_those_who_join(
    tmp_path: Path, version, parent: str, file: str, most: str
) -> None:
    version(tmp_path)
    with MemoryLimit(LIMIT, tmp_path) as limit:
        assert limit.folder.parent == tmp_path / parent
        assert (limit.folder / file).read_text() == str(LIMIT)
        assert limit.most() is None
        (limit.folder / most).write_text("1234\n")
        assert limit.most() == 1234
        join(str(limit.folder))
        assert (limit.folder / "cgroup.procs").read_text() == str(os.getpid())


def test_an_empty_group_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_1(tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda *_: 0)  # the kernel's files are not files in the folder
    with MemoryLimit(LIMIT, tmp_path) as limit:
        assert limit.folder.is_dir()
    assert not limit.folder.exists()


def test_machines_without_groups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="has no control groups for memory"):
        MemoryLimit(LIMIT, tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    with pytest.raises(OptionError, match="has no control groups for memory"):
        MemoryLimit(LIMIT, tmp_path)
    with pytest.raises(OptionError, match="a memory limit of 5 bytes"):
        MemoryLimit(5, tmp_path)


def test_groups_that_may_not_be_made_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_2(tmp_path)

    def forbidden(**_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", forbidden)
    with pytest.raises(OptionError, match=r"cannot be made \(Permission denied\)"), MemoryLimit(LIMIT, tmp_path):
        pass


def test_files_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in (model / "a.safetensors", model / "config.json", tmp_path / "model-bf16.gguf"):
        file.write_bytes(bytes(10))
    forgotten: list[str] = []
    monkeypatch.setattr("sys.prefix", str(tmp_path / "none"))
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, *_: forgotten.append(Path(f"/proc/self/fd/{fd}").readlink().name)
    )
    forget_files(model)
    assert sorted(forgotten) == ["a.safetensors", "model-bf16.gguf"]


def test_only_the_group_that_was_made_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_1(tmp_path)
    monkeypatch.setattr(Path, "write_text", lambda *_: 0)
    with MemoryLimit(LIMIT, tmp_path) as limit:
        limit.folder.rename(tmp_path / "moved")
        limit.folder.mkdir()
    assert limit.folder.is_dir()


def test_a_group_that_is_left_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    version_1(tmp_path)
    with MemoryLimit(LIMIT, tmp_path) as limit:  # here the kernel's files keep the folder
        pass
    assert f"{limit.folder}: this control group cannot be removed: Directory not empty" in caplog.text
