from __future__ import annotations

from pathlib import Path

import pytest

from faasmoe.errors import OptionError
from faasmoe.util.folders.user_cache import CACHE, user_cache


def test_the_folder_that_is_named_is_taken_before_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv(CACHE, "/named")
    assert user_cache() == Path("/named")
    monkeypatch.delenv(CACHE)
    assert user_cache() == Path("/caches/faasmoe")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/one")
    assert user_cache() == Path("/home/one/.cache/faasmoe")


def test_without_a_home_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(CACHE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    with pytest.raises(OptionError, match=f"home directory.*{CACHE} names a folder"):
        user_cache()
