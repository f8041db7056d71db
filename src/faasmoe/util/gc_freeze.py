"""Keeps Python's memory management away from imported objects: processes start sooner, and share more with forks."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_IMMORTAL = 0xFFFFFFFF  # Include/object.h of CPython 3.12 and 3.13: the lower half of an immortal object's count


@contextmanager
def importing() -> Iterator[None]:
    """For the imports and set-up of a process: the collector looks for garbage once, at the end, and never there again.

    Libraries make millions of objects that stay. Looking through them while they come takes a third of the time that
    importing takes. Later collections leave them alone, and with them the pages that forked processes share.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def keep_imported() -> None:
    """Have the collector look at nothing that is there now, not even at the end of `importing`.

    For when all modules are imported and nothing else is there yet: hardly any of it is garbage, and looking at half a
    million objects takes a quarter of a second.
    """
    gc.freeze()


def immortalise() -> None:
    """Have references to all objects that are there now not be counted, so that using them writes to no page.

    For a process that forks: each child that uses an object would get a copy of its page. The objects are immortal as
    PEP 683 has it, and never freed. Takes some 50 ms; does nothing before CPython 3.12, which counts all references.
    """
    if sys.getrefcount(None) != _IMMORTAL or "t" in sys.abiflags:  # builds with free threads count elsewhere
        return
    gc.unfreeze()
    objects = gc.get_objects()
    gc.freeze()
    for address in {*map(id, objects), *map(id, gc.get_referents(*objects))}:
        ctypes.c_uint32.from_address(address).value = _IMMORTAL
