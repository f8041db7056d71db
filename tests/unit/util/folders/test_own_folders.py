"""Nothing is removed but what we have made: foreign things lie beside ours, under every name that we use."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasmoe.errors import OptionError
from faasmoe.platforms.local.protocol.messages import SOCKET
from faasmoe.util.folders import copy_cache
from faasmoe.util.folders.own_folders import contents, folders, is_same, open_own
from faasmoe.util.folders.run_folder import RunFolder, live, sweep

MARKER, MEMBERS, CONTENTS = "run-folder", "members", b"FaaSMoE run folder, version 1\n"
MANIFEST = b'{"kind":"FaaSMoE copy of weights, version 1","sources":[["/gone",1,2]],"files":["dense.safetensors"]}'
PLACES = ["temporary", "parent", "cache", "copies"]
OUTER = [
    "faasmoe", "faasmoe-results", "faasmoe-abcdefgh", "faasmoe-demo-copy", f"faasmoe-{os.getuid()}", "abcdefgh",
    "new-abcdefgh", "int8", "demo-0123456789abcdef", "new-0123456789abcdef", MARKER, MEMBERS, SOCKET, "copy.json",
]  # fmt: skip
INNER = [
    MARKER, MEMBERS, SOCKET, "functions.json", "rest.json", "artifacts", "copy.json", "made-from.json", "used", "lock",
    "dense.safetensors", "dense.partial",
]  # fmt: skip
KINDS = ["file", "folder", "link to a file", "link to a folder", "dangling link", "fifo", "socket", "hard link"]
Things = dict[tuple[str, str], dict[str, str]]

things = st.dictionaries(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(OUTER)),
    st.dictionaries(st.sampled_from(["", *INNER]), st.sampled_from(KINDS), max_size=4),
    max_size=8,
)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="own-") as folder:
        yield Path(folder)


def put(at: Path, kind: str, ours: Path) -> None:
    """Something that we have not made. `ours`: a run folder that a crash has left, whose files are linked to."""
    if kind == "file":
        at.write_bytes(b"somebody's")
    elif kind == "folder":
        at.mkdir(parents=True)
    elif kind == "fifo":
        os.mkfifo(at)
    elif kind == "socket":
        os.mknod(at, stat.S_IFSOCK | 0o600)
    elif kind == "hard link":
        os.link(ours / MARKER, at)
    else:
        at.symlink_to({"link to a file": ours / MARKER, "link to a folder": ours}.get(kind, ours / "nowhere"))


def seen(folder: Path) -> dict[str, object]:
    """Everything beneath a folder: its kind, its identity, and what it holds."""
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        held: object = None
        if path.is_symlink():
            held = path.readlink()
        elif path.is_file():
            held = path.read_bytes()
        found[str(path)] = (status.st_mode, status.st_ino, held)
    return found


@given(things=things, private=st.booleans())
def test_foreign_things_stay_as_they_are(base: Path, things: Things, private: bool) -> None:
    with tempfile.TemporaryDirectory(dir=base) as root, pytest.MonkeyPatch.context() as patch:
        temporary, cache = Path(root, "t"), Path(root, "c")
        parent = temporary / f"faasmoe-{os.getuid()}"
        places = {"temporary": temporary, "parent": parent, "cache": cache, "copies": cache / "int8"}
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.setattr(tempfile, "tempdir", str(temporary))
        for place in (temporary, cache):
            place.mkdir()
        parent.mkdir(mode=0o700 if private else 0o755)
        (cache / "int8").mkdir()
        ours = parent / "crashed"  # and what is linked to it
        ours.mkdir()
        for name, held in ((MEMBERS, b""), (MARKER, CONTENTS), ("copy.json", MANIFEST)):
            (ours / name).write_bytes(held)
        held = [place for place in places.values() if place.exists()]
        for (place, name), inside in things.items():
            at = places[place] / name
            if at in held or at.exists():
                continue
            if "" in inside:
                put(at, inside[""], ours)
                continue
            at.mkdir()
            for inner, kind in inside.items():
                put(at / inner, kind, ours)
            os.utime(at, (0, 0))
        before = seen(Path(root))
        linked = (ours / MARKER).stat().st_nlink > 1
        with suppress(OptionError), RunFolder():
            live()
            sweep()
        copy_cache.sweep(cache / "int8")
        after = seen(Path(root))
        lost = {path: what for path, what in before.items() if after.get(path) != what}
        assert all(Path(path) == ours or ours in Path(path).parents for path in lost)
        assert set(after) <= set(before)
        assert ours.exists() == (linked or not private)  # what is not as it must be is left alone


def test_candidates_are_folders_of_this_user(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert list(folders(tmp_path)) == [tmp_path / "one"]
    assert list(folders(tmp_path / "missing")) == []
    assert list(folders(tmp_path / "file")) == []


def test_only_files_of_this_user_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"text")
    fd = open_own(file)
    assert fd is not None
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert contents(fd) == b"text"
    assert is_same(fd, file)
    file.rename(tmp_path / "moved")
    assert not is_same(fd, file)
    file.touch()
    assert not is_same(fd, file)
    os.close(fd)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert open_own(file) is None
    assert open_own(tmp_path / "missing") is None
