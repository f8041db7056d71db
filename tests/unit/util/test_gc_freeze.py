from __future__ import annotations

import gc
import weakref

import pytest

from faasmoe.util.gc_freeze import importing, keep_imported


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
