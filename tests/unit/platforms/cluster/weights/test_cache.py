"""The cache of fetched weights: its cap, and what goes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from faasmoe.platforms.cluster.weights.cache import CacheFull, WeightsCache

BLOCK = 1 << 16  # bytes of an entry here, so that a file system's blocks do not matter
PLENTY = 1 << 40


def fill(cache: WeightsCache, digest: str, used: int) -> Path:
    """An entry of `BLOCK` bytes that nobody uses, and that was used last at the instant `used`."""
    with cache.make(digest, BLOCK) as entry:
        entry.file(0).write_bytes(os.urandom(BLOCK))
        os.sync()
    os.utime(entry.folder / "used", (used, used))
    return entry.folder


def test_what_was_fetched_is_there_for_the_next(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path / "cache")
    assert cache.entry("d") is None
    fill(cache, "d", 1)
    again = WeightsCache(tmp_path / "cache").entry("d")
    assert again is not None
    with again:
        assert again.file(0).stat().st_size == BLOCK
    assert cache.used() >= BLOCK


def test_the_least_recently_used_go_first_and_no_more_than_needed(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, cap=3 * BLOCK, free=lambda _: PLENTY)
    entries = [fill(cache, name, used) for name, used in (("a", 30), ("b", 10), ("c", 20))]
    fill(cache, "d", 40)
    assert [entry.exists() for entry in entries] == [True, False, True]


def test_what_is_used_is_never_removed(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, cap=2 * BLOCK, free=lambda _: PLENTY)
    old, new = fill(cache, "old", 1), fill(cache, "new", 2)
    using = cache.entry("old")
    assert using is not None
    with using:
        os.utime(old / "used", (1, 1))
        fill(cache, "third", 3)
        assert (old.exists(), new.exists()) == (True, False)
        with pytest.raises(CacheFull, match=r"no room for .* in use, and --weights-cache is 0\.1 MB"):
            cache.make("fourth", 2 * BLOCK)
        assert old.exists()


def test_a_full_disk_is_told_with_what_it_has_left(tmp_path: Path) -> None:
    left = [PLENTY]
    cache = WeightsCache(tmp_path, free=lambda _: left[0])
    old = fill(cache, "old", 1)
    left[0] = 65 << 20
    with pytest.raises(CacheFull, match=r"the disk is full: 2\.0 MB of weights are to come, and 68\.2 MB"):
        cache.make("new", 2_000_000)
    assert not old.exists()  # it was tried
    fill(cache, "small", 2)


def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    left = [PLENTY]
    cache = WeightsCache(tmp_path, free=lambda _: left[0])
    entry = fill(cache, "d", 1)
    left[0] = 0
    with cache.make("d", BLOCK) as again:
        assert again.file(0).stat().st_size == BLOCK
    assert entry.exists()


def test_only_what_the_cache_has_made_is_removed(tmp_path: Path) -> None:
    cache = WeightsCache(tmp_path, cap=BLOCK, free=lambda _: PLENTY)
    entry = fill(cache, "d", 1)
    (entry / "mine").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "0.weights").write_bytes(bytes(BLOCK))
    (foreign / "used").write_text("another program's")
    fill(cache, "e", 2)
    assert sorted(path.name for path in entry.iterdir()) == ["mine"]
    assert len(list(foreign.iterdir())) == 2
