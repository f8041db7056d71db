from __future__ import annotations

import gc
import sys
import weakref

import pytest

from faasmoe.util.gc_freeze import immortalise, importing, keep_imported


def test_the_collector_rests_and_then_leaves_alone_what_has_come() -> None:
    frozen = gc.get_freeze_count()
    try:
        with importing():
            assert not gc.isenabled()
            made = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= frozen + len(made)
        assert not any(found is made for found in gc.get_objects())
    finally:
        gc.unfreeze()


def test_it_works_again_after_an_import_that_fails() -> None:
    try:
        with pytest.raises(ImportError), importing():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_what_is_imported_is_kept_and_what_comes_later_is_looked_at() -> None:
    class Node:
        def __init__(self) -> None:
            self.own = self

    try:
        with importing():
            imported = weakref.ref(Node())
            keep_imported()
            loaded = weakref.ref(Node())
            assert loaded() is not None
        assert imported() is not None
        assert loaded() is None
    finally:
        gc.unfreeze()


def test_references_to_immortal_objects_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before CPython 3.12 nothing happens. All objects of this process but two are left out."""
    referent: list[object] = []
    objects = [[referent]]
    monkeypatch.setattr(gc, "get_objects", lambda: objects)
    before = sys.getrefcount(referent)
    try:
        immortalise()
    finally:
        gc.unfreeze()
    if sys.version_info < (3, 12):
        assert sys.getrefcount(referent) == before
        return
    for each in (objects[0], referent):
        assert sys.getrefcount(each) == sys.getrefcount(None)
