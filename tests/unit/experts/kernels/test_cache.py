from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from numba import njit

from faasmoe.errors import OptionError
from faasmoe.experts.kernels.cache import CACHE, KernelCache, user_cache


def test_kernels_are_kept_in_a_private_folder_of_the_cache_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    kept = KernelCache.open()
    assert kept.folder is not None
    assert kept.folder.parent == tmp_path / "cache" / "kernels"
    assert {each.stat().st_mode & 0o777 for each in (kept.folder, kept.folder.parent)} == {0o700}
    assert KernelCache.open() == kept


def test_another_version_has_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    before = KernelCache.open().folder
    (tmp_path / "matvec.py").write_text("x = 1")
    monkeypatch.setattr("faasmoe.experts.kernels.cache.__file__", str(tmp_path / "kernels" / "cache.py"))
    first = KernelCache.open().folder
    (tmp_path / "matvec.py").write_text("x = 2")
    assert len({before, first, KernelCache.open().folder}) == 3


@pytest.mark.parametrize(("below", "mode"), [("kernels", 0o770), ("kernels", 0o1777), ("", 0o777)])
def test_a_folder_that_others_can_write_to_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, below: str, mode: int
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    (tmp_path / "cache" / "kernels").mkdir(parents=True)
    (tmp_path / "cache" / below).chmod(mode)
    kept = KernelCache.open()
    assert kept.folder is None
    assert f"{(tmp_path / 'cache' / below)} belongs to another user, or others may write to it" in kept.trouble
    assert CACHE in kept.trouble


def test_without_a_home_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    with pytest.raises(OptionError, match=f"home directory.*{CACHE} names a folder"):
        user_cache()
    assert CACHE in KernelCache.open().trouble


def test_what_is_compiled_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE, str(tmp_path / "file" / "cache"))
    nowhere, here = KernelCache.open(), KernelCache(tmp_path)
    kernel = njit(lambda value: value + 1)
    with caplog.at_level(logging.INFO, "faasmoe"):
        with nowhere.told():
            kernel(1)
        line = caplog.messages[-1]
        assert "compiled kernels in " in line
        assert f"since they cannot be kept: {tmp_path}/file/cache: {os.strerror(errno.ENOTDIR)}" in line
        assert CACHE in line
        with here.told():
            kernel(1.5)
        assert f"they are kept in {tmp_path}" in caplog.messages[-1]
        caplog.clear()
        with here.told():
            kernel(2)
    assert not caplog.messages
